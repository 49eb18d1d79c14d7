"""Bound what one customer can change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ABOVE_ROUNDING = 1 + 1e-12
"""Norms and products in float64 are wrong by less (pairwise sums, up to 10^9 coordinates);
dividing by it keeps the bound strict."""
_PLAIN_SQUARES = 1e200
"""Squared norms below it came from no overflow."""


def clip_rows(rows: NDArray[np.floating], clip_norm: float) -> NDArray[np.float64]:
    """(n, d) one row a customer -> (n, d) float64.

    Guarantee: every row of the result has ||row||_2 <= clip_norm, rounding included; a row
    below the bound is unchanged; a row that holds NaN or infinity is zero: a poisoned customer
    neither breaks the sum nor shows by it. Finite rows of any size are scaled, not lost.
    """
    values = np.array(rows, dtype=np.float64)
    values[~np.isfinite(values).all(axis=1)] = 0.0
    peaks = np.abs(values).max(axis=1, initial=0.0)
    peaks[peaks == 0] = 1.0
    # Scaled by its peak, a row of 1e38 or 1e300 has a finite norm.
    norms = np.linalg.norm(values / peaks[:, None], axis=1)
    with np.errstate(over="ignore"):
        excess = norms * peaks / clip_norm
    inside = excess < 1 / _ABOVE_ROUNDING
    factors = np.where(inside, 1.0, clip_norm / np.maximum(norms, 1e-300) / _ABOVE_ROUNDING)
    unit = np.where(inside, 1.0, peaks)
    return values / unit[:, None] * factors[:, None]


def clip_and_sum(rows: NDArray[np.floating], clip_norm: float) -> NDArray[np.float64]:
    """(n, d) -> (d,): the float64 sum of :func:`clip_rows`; zeros for n = 0.

    Guarantee: adding or removing one customer changes the sum by at most ``clip_norm`` in L2,
    up to the rounding of the addition (below 1e-9 of a grid step of any plan).
    """
    values = np.asarray(rows, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(values).sum(axis=1)
    if not bool(np.all(squares < _PLAIN_SQUARES)):  # NaN, infinity, or squares that overflow
        return clip_rows(values, clip_norm).sum(axis=0)
    # Without copies of all rows: for large models these take longer than the gradients.
    excess = np.sqrt(squares) / clip_norm
    factors = np.where(excess < 1 / _ABOVE_ROUNDING, 1.0,
                       1 / np.maximum(excess, 1e-300) / _ABOVE_ROUNDING)
    return factors @ values
