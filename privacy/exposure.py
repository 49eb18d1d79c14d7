"""What opened sums, taken together, tell about one partner's own sum, as numbers.

The look: at one model, sets of partners are opened, each so many times. Partner i's clipped sum u_i
has ``size`` coordinates and norm m_i; the mean of t openings of the set S is the sum of its u_i
plus noise of variance v_S / t a coordinate. The estimate is the best linear one where all that is
known before is each norm, and updates are unrelated: coordinates independent, of mean 0 and
variance m_i^2 / size. That is least squares, regularised by these variances; where sets differ and
noise is small, it is plain least squares, and where only one set was opened, it is the sum itself
times m_i^2 over all partners' squares. Its relative error r (root mean square of the
distance over m_i) lies in [0, 1], 1 meaning nothing learned; its expected cosine with u_i is
sqrt(1 - r^2), for many coordinates. Source: linear minimum mean square error estimation, Kay,
Fundamentals of Statistical Signal Processing I, section 12.5.

How often sets may be opened is each partner's ledger's business: a partner takes part in so many
openings, over all sets. Which frequencies tell most is a convex problem (the error is a convex
function of the precisions), solved by Frank and Wolfe's method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize_scalar

from privacy.accounting import (
    epsilon_with_failures,
    event_json,
    event_mu_squared,
    event_rdp,
    gaussian_epsilon,
    rdp_to_epsilon,
)
from privacy.ledger import LATTICE
from privacy.plan import PrivacyPlan

_MOST_ENUMERATED = 10
"""Partners up to which all sets are tried; beyond, all of them and all but one. With one colluder
no sets make an error 2.2 times smaller: one opening of a set has a variance of ``base`` at least, a
partner takes part in R of them at most, and these two alone, R/2 times each, give 4.5 base / R."""
_STEPS = 40
_MOST_ROUNDS = 1 << 40


@dataclass(frozen=True)
class Looks:
    """sets: (k, n) bool, who is in each opened sum; times: (k,) how often it is opened, above 0;
    noise_variance: (k,) of one opening, a coordinate."""

    sets: NDArray[np.bool_]
    times: NDArray[np.float64]
    noise_variance: NDArray[np.float64]

    def estimate(self, norms: NDArray[np.float64], size: int, partner: int) -> Estimate:
        """norms: (n,) of the partners' updates of ``size`` coordinates, above 0."""
        prior = norms ** 2 / size
        mixed = self.sets.astype(np.float64)
        spread = mixed * prior @ mixed.T + np.diag(self.noise_variance / self.times)
        towards = mixed[:, partner] * prior[partner]
        weights = np.linalg.lstsq(spread, towards, rcond=None)[0]
        left = 1 - float(towards @ weights) / prior[partner]
        return Estimate(weights, math.sqrt(min(max(left, 0.0), 1.0)))


@dataclass(frozen=True)
class Estimate:
    """weights: (k,) of the mean of each set's opened sums; relative_error: root mean square."""

    weights: NDArray[np.float64]
    relative_error: float

    @property
    def cosine(self) -> float:
        return math.sqrt(1 - self.relative_error ** 2)


@dataclass(frozen=True)
class Noise:
    """Of one opened sum, by a run's plan. base: variance a coordinate of a sum with no noise to
    spare; colluders: who may leave theirs out; whole: each partner adds all of it (local_dp).
    gain: of a partner's customers and steps, how much a round's update sums up."""

    base: float
    colluders: int
    whole: bool
    gain: float = 1.0

    @classmethod
    def of(cls, plan: PrivacyPlan, colluders: int) -> Noise:
        """In units in which one customer's clipped gradient or delta has ``clip_norm`` at most."""
        update = plan.region("update")
        if plan.mode == "none":
            return cls(0.0, 0, False)
        if plan.local_steps:  # DP-SGD: a delta is lr / (rate n) times this
            std = plan.local_noise_multiplier * update.clip_norm
            return cls(plan.local_steps * std ** 2, 0, True,
                       plan.local_steps * plan.sample_rate)
        return cls((update.noise_multiplier * update.sensitivity) ** 2, colluders, False)

    def variance(self, partners: int) -> float:
        """Of the sum over so many, under a configuration whose quorum is all of them: the least
        noise that a server can ask for."""
        if self.whole:
            return self.base * partners
        return self.base * partners / (partners - self.colluders)


def sets_of(partners: int, least: int) -> NDArray[np.bool_]:
    """(k, partners) sets of ``least`` partners or more, all of them where that can be tried."""
    smallest = least if partners <= _MOST_ENUMERATED else max(least, partners - 1)
    chosen = [set(found) for count in range(smallest, partners + 1)
              for found in itertools.combinations(range(partners), count)]
    return np.array([[name in found for name in range(partners)] for found in chosen], np.bool_)


def most_telling(sets: NDArray[np.bool_], noise: Noise, looks: int, norms: NDArray[np.float64],
                 size: int, partner: int) -> Estimate:
    """The estimate of one partner from the frequencies of ``sets`` that tell most about it, while
    nobody takes part in more than ``looks`` openings. Within a few percent of the best."""
    variance = np.array([noise.variance(int(count)) for count in sets.sum(axis=1)])
    if not looks:
        return Estimate(np.zeros(0), 1.0)
    if len(sets) == 1 or noise.base == 0:
        return Looks(sets, np.full(len(sets), float(looks)), variance).estimate(
            norms, size, partner)
    mixed = sets.astype(np.float64)

    def left(times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) column of the inverse precision that belongs to the partner."""
        precision = mixed.T * (times / variance) @ mixed + np.diag(size / norms ** 2)
        unit = np.zeros(len(norms))
        unit[partner] = 1.0
        return np.linalg.solve(precision, unit)

    def along(part: float, now: NDArray[np.float64], to: NDArray[np.float64]) -> float:
        return float(left((1 - part) * now + part * to)[partner])

    times = np.full(len(sets), looks / len(sets))
    for _ in range(_STEPS):
        gain = (mixed @ left(times)) ** 2 / variance
        best = linprog(-gain / gain.max(), A_ub=mixed.T, b_ub=np.full(len(norms), float(looks))).x
        step = minimize_scalar(along, bounds=(0.0, 1.0), args=(times, best), method="bounded").x
        times = (1 - step) * times + step * best
    used = times > 1e-9 * looks
    return Looks(sets[used], times[used], variance[used]).estimate(norms, size, partner)


def rounds_admitted(plan: PrivacyPlan, limit: float, delta: float) -> int:
    """Most rounds like those of ``plan`` that a ledger with ``limit`` at ``delta`` takes, be they
    of one run or, at least as costly, of several."""
    return _most(lambda rounds: spent(plan, rounds, 1, delta), limit)


def runs_admitted(plan: PrivacyPlan, limit: float, delta: float) -> int:
    """Most whole runs of ``plan`` that a ledger takes."""
    return _most(lambda runs: spent(plan, runs * plan.rounds, runs, delta), limit)


def spent(plan: PrivacyPlan, rounds: int, runs: int, delta: float) -> float:
    """Epsilon at ``delta`` of so many rounds of so many runs, as ``privacy.ledger`` composes it:
    Gaussians exactly, others by RDP, and what each run sets aside of delta."""
    each, start, failure = plan.round_event(), plan.start_event(), runs * plan.failure
    one, once = event_mu_squared(each), event_mu_squared(start)
    if one is not None and once is not None:
        mu = math.sqrt(rounds * one + runs * once)
        inflation = (1 + LATTICE) ** (runs if plan.failure else 0)
        return epsilon_with_failures(lambda left: gaussian_epsilon(mu, left / inflation), delta,
                                     failure)
    begun = (0.0,) if once == 0 else event_rdp(event_json(start))
    divergences = tuple(
        rounds * divergence + runs * first for divergence, first in
        zip(event_rdp(event_json(each)), itertools.cycle(begun), strict=False))
    return epsilon_with_failures(lambda left: rdp_to_epsilon(divergences, left), delta, failure)


def _most(cost: Callable[[int], float], limit: float) -> int:
    """The largest count whose cost, which grows with it, is within ``limit``."""
    low, high = 0, 1
    while high < _MOST_ROUNDS and cost(high) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return low
