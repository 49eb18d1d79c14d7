"""Integer noise from the operating system's randomness.

Guarantee: every draw of :class:`NoiseSource` has a distribution within total variation 2^-100
of the exact one. The cumulative table has 128-bit entries, each wrong by less than 2^-127
(fixed point of 320 bits; at most 2^21 entries and as many truncations), the part of the
distribution outside the table is below 2^-138 (|x| > 14 std), and a uniform of 128 bits is
compared exactly. So a run of 2^40 draws is within 2^-60 of the ideal mechanism.

No claim is made about timing: table lookups take data-dependent time.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BITS = 320
_TAIL_STDS = 14
MAX_STD_STEPS = 70_000.0
"""Above this the table would not fit its stated size; no grid needs it."""


@dataclass(frozen=True)
class _Table:
    """values: (m,) int64 support; high, low: (m,) uint64 halves of the 128-bit cumulative
    probabilities P[X <= value], the last one cut to 2^128 - 1."""

    values: NDArray[np.int64]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]


class NoiseSource:
    """Fresh randomness. It has no seed and no state, so no draw can be repeated."""

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        """(size,) draws of the discrete Gaussian: P[x] proportional to exp(-x^2 / (2 std^2)) on
        the integers, ``std_steps`` in grid steps. 0 gives zeros; raises ValueError beyond
        ``MAX_STD_STEPS``. Source of the distribution: arXiv 2004.00010."""
        if std_steps == 0:
            return np.zeros(size, np.int64)
        table = _table(float(std_steps))
        high = _uint64(size)
        index = np.searchsorted(table.high, high, side="left")
        # Only draws whose first 64 bits meet a table entry need the other 64 bits.
        for draw in np.flatnonzero(table.high[np.minimum(index, len(table.high) - 1)] == high):
            low = int(_uint64(1)[0])
            while table.high[index[draw]] == high[draw] and low > int(table.low[index[draw]]):
                index[draw] += 1
        return table.values[index]

    def uniform(self, size: int) -> NDArray[np.float64]:
        """(size,) multiples of 2^-53, uniform on [0, 1)."""
        return (_uint64(size) >> np.uint64(11)) * 2.0 ** -53


def _uint64(size: int) -> NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * size), dtype=np.uint64)


@lru_cache(maxsize=32)
def _table(std: float) -> _Table:
    """Fixed-point recurrence: p(k+1) / p(k) = exp(-(2k+1) / (2 std^2))."""
    if not 0 < std <= MAX_STD_STEPS:
        raise ValueError(f"std must lie in (0, {MAX_STD_STEPS:g}] grid steps, got {std}")
    context = Context(prec=120)
    square = context.multiply(Decimal(std), Decimal(std))
    first = context.exp(context.divide(Decimal(-1), context.multiply(Decimal(2), square)))
    one = 1 << _BITS
    ratio = int(context.multiply(first, Decimal(one)))
    shrink = ratio * ratio >> _BITS
    weights = [one]
    for _ in range(math.ceil(_TAIL_STDS * std)):
        weights.append(weights[-1] * ratio >> _BITS)
        ratio = ratio * shrink >> _BITS
    total = 2 * sum(weights) - one
    halves = [weights[k] for k in range(len(weights) - 1, 0, -1)] + weights
    high = np.empty(len(halves), np.uint64)
    low = np.empty(len(halves), np.uint64)
    running, mask = 0, (1 << 64) - 1
    for position, weight in enumerate(halves):
        running += weight
        # X <= value exactly for the uniform u in 0 .. cumulative * 2^128 - 1.
        entry = max((running << 128) // total - 1, 0)
        high[position], low[position] = entry >> 64, entry & mask
    reach = len(weights) - 1
    return _Table(np.arange(-reach, reach + 1, dtype=np.int64), high, low)
