"""What rounding to the integer grid adds to the sensitivity of a sum.

Units: grid steps. A partner's clamped sum x (d,) is rounded at random, unbiased:
y = floor(x + U) with U uniform on [0, 1)^d, then integer noise is added. A neighbour's sum is
x + v with ||v||_2 <= C (clamping is 1-Lipschitz in every coordinate).

Worst case. |floor(x+v+U) - floor(x+U)| <= |v_j| + 1 in each coordinate, so the integer shift w
has ||w||_2 <= C + sqrt(d). Deterministic rounding gives no better bound.

Random rounding. Hand U to the adversary: given U, the release is the integer Gaussian mechanism
with shift w(U), and U has the same law for both neighbours. With k = floor(v), p = v - k:
w_j = k_j + Bernoulli(p_j), independent over j, so

    E ||w||^2 = sum v_j^2 + p_j (1 - p_j) <= C^2 + d/4 =: a,

and ||w||^2 - E ||w||^2 = sum (2 k_j + 1) (B_j - p_j) is a sum of independent centred variables of
widths |2 k_j + 1| <= 2 |v_j| + 1, so by Hoeffding's lemma
E exp(l (||w||^2 - a)) <= exp(l^2 R^2 / 8) with R = 2 C + sqrt(d).

Over rounds whose v may depend on everything released before, exp(l S_r - l^2 r R^2 / 8) with
S_r = sum (||w_t||^2 - a) is a supermartingale; Ville's inequality bounds all r at once: except
with probability beta, S_r <= L / l + r l R^2 / 8 with L = ln(1/beta). The choice
l = sqrt(8 L / (T R^2)) for T planned rounds gives

    sum_{t<=r} ||w_t||^2 <= r (a + h) + T h   for every r,   h = R sqrt(L / (8 T)).

So each round costs a + h, and T h is charged once, before the first round. Stopping the shift
where the bound would break gives a mechanism that is the true one but for an event of
probability beta (charged to delta) and whose total squared shift never exceeds the bound; by
the fully adaptive composition of Gaussian mechanisms (arXiv 2210.17520) it is as private as one
Gaussian with that squared shift. Stepping through T rounds, worst case and random rounding are
compared and the smaller is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SquaredShift:
    """Bound on the squared integer shift, in squared steps: ``per_round`` in each round plus
    ``once``."""

    per_round: float
    once: float

    def total(self, rounds: int) -> float:
        return rounds * self.per_round + (self.once if rounds else 0.0)


def squared_shift(clip_steps: float, size: int, rounds: int, failure: float) -> SquaredShift:
    """The bound above for C = ``clip_steps``, d = ``size``, T = ``rounds``, beta = ``failure``.

    Both bounds hold for any number of rounds r, not only T.
    """
    root = math.sqrt(size)
    worst = SquaredShift((clip_steps + root) ** 2, 0.0)
    spread = (2 * clip_steps + root) * math.sqrt(-math.log(failure) / (8 * rounds))
    random = SquaredShift(clip_steps ** 2 + size / 4 + spread, rounds * spread)
    return min(worst, random, key=lambda shift: shift.total(rounds))
