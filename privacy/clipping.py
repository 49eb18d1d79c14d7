"""Bound what one customer can change."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_ABOVE_ROUNDING = 1 + 1e-12
"""Norms and products in float64 are wrong by less (pairwise sums, up to 10^9 coordinates);
dividing by it keeps the bound strict."""
_PLAIN_SQUARES = 1e-200, 1e200
"""Squared norms between them came from no overflow, and lost nothing that counts."""
_GRID_BITS = 30
MOST_CUSTOMERS = 2 ** (53 - _GRID_BITS - 1)
"""Sums of so many rows are exact: 4 million."""


def clip_rows(rows: NDArray[np.floating], clip_norm: float) -> NDArray[np.float64]:
    """(n, d) one row a customer -> (n, d) float64, multiples of a power of two that is at most
    ``clip_norm`` / 2^30, each cut towards zero.

    Guarantee: every row of the result has ||row||_2 <= clip_norm, rounding included, and is a
    function of that row alone, to the bit, wherever it stands; a row below the bound is unchanged
    but for the cut; a row that holds NaN or infinity is zero: a poisoned customer neither breaks
    the sum nor shows by it. Finite rows of any size are scaled, not lost.
    """
    return _steps(rows, clip_norm) * _step(clip_norm)


def clip_and_sum(rows: NDArray[np.floating], clip_norm: float) -> NDArray[np.float64]:
    """(n, d) -> (d,): the float64 sum of :func:`clip_rows`; zeros for n = 0.

    Guarantee: adding or removing one customer changes the sum by that customer's clipped row and
    nothing else, so by at most ``clip_norm`` in L2; sums over any division of the customers into
    parts add up to the same bits. They are sums of integers below 2^53, exact in any order. Raises
    ValueError for more than MOST_CUSTOMERS.
    """
    if len(rows) > MOST_CUSTOMERS:
        raise ValueError(f"{len(rows)} customers in one sum are more than {MOST_CUSTOMERS}")
    return _steps(rows, clip_norm).sum(axis=0) * _step(clip_norm)


def _step(clip_norm: float) -> float:
    return math.ldexp(1.0, math.frexp(clip_norm)[1] - 1 - _GRID_BITS)


def _steps(rows: NDArray[np.floating], clip_norm: float) -> NDArray[np.float64]:
    """The clipped rows as integers, in units of :func:`_step`."""
    values = np.array(rows, dtype=np.float64, order="C")
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares = np.square(values).sum(axis=1)  # row by row: each in the order of its own numbers
        excess = np.sqrt(squares) / clip_norm
    low, high = _PLAIN_SQUARES
    odd = np.flatnonzero(~((squares > low) & (squares < high)))
    factors = np.where(excess < 1 / _ABOVE_ROUNDING, 1.0,
                       1 / np.maximum(excess, 1e-300) / _ABOVE_ROUNDING)
    # Each row by a rule that looks at this row alone: one that is not finite, or whose squares
    # overflow, must not send the others down another path.
    if len(odd):
        values[odd], factors[odd] = _scaled(values[odd], clip_norm), 1.0
    values *= factors[:, None]
    values /= _step(clip_norm)  # a power of two: exact
    return np.trunc(values, out=values)


def _scaled(values: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """Rows with NaN or infinity become 0; others are clipped by way of their peaks, because 1e38
    or 1e300 has no finite square."""
    values[~np.isfinite(values).all(axis=1)] = 0.0
    peaks = np.abs(values).max(axis=1, initial=0.0)
    peaks[peaks == 0] = 1.0
    unit = values / peaks[:, None]
    norms = np.sqrt(np.square(unit).sum(axis=1))
    with np.errstate(over="ignore"):
        inside = norms * peaks / clip_norm < 1 / _ABOVE_ROUNDING
    factors = np.where(inside, 1.0, clip_norm / np.maximum(norms, 1e-300) / _ABOVE_ROUNDING)
    return np.where(inside[:, None], values, unit * factors[:, None])
