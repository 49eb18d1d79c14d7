"""Digits to complex slots and back: pure arithmetic on the integer grid.

A block holds, for digit place i < m, part p (0 real, 1 imaginary) and slot s < N/2, the digit
number (2 i + p) N/2 + s of its stretch of the vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encryption.ckks import CKKSParameters


def pack(digits: NDArray[np.int64], parameters: CKKSParameters) -> NDArray[np.complex128]:
    """(blocks * values_per_block,) signed digits -> (blocks, N/2) slots on the integer grid.

    Exact for digits within one client's range: reals stay below 2^52.
    """
    parts = digits.reshape(-1, parameters.digits_per_real, 2, parameters.ring_degree // 2)
    reals = parts[:, -1].copy()
    for place in range(parameters.digits_per_real - 2, -1, -1):
        reals *= parameters.radix
        reals += parts[:, place]
    slots = np.empty((len(parts), parameters.ring_degree // 2), np.complex128)
    slots.real, slots.imag = reals[:, 0], reals[:, 1]
    return slots


@dataclass(frozen=True)
class Unpacked:
    """``digits``: (blocks * values_per_block,) digit sums, meaningful only if ``in_range``.
    ``distance``: largest distance of a real from the grid, in grid steps."""

    digits: NDArray[np.int64]
    distance: float
    in_range: bool


def unpack(slots: NDArray[np.complex128], parameters: CKKSParameters) -> Unpacked:
    """(blocks, N/2) slots of a sum over at most max_clients -> its digit sums.

    Never raises: what is no number or out of range shows in ``distance`` and ``in_range``.
    """
    reals = np.stack((slots.real, slots.imag), axis=1)  # (blocks, 2, N/2)
    grid = np.rint(reals)
    with np.errstate(invalid="ignore"):
        distance = float(np.max(np.abs(reals - grid)))
    shape = (len(slots), parameters.digits_per_real, *reals.shape[1:])
    if not np.isfinite(distance) or bool(np.any(np.abs(grid) > parameters.magnitude)):
        return Unpacked(np.zeros(np.prod(shape), np.int64), distance, False)
    # Adding B/2 to every digit makes them all non-negative, so that plain division finds them.
    rest = grid.astype(np.int64) + parameters.magnitude
    digits = np.empty(shape, np.int64)
    half = parameters.radix // 2
    for place in range(parameters.digits_per_real):
        higher = rest // parameters.radix
        np.subtract(rest, higher * parameters.radix + half, out=digits[:, place])
        rest = higher
    return Unpacked(digits.reshape(-1), distance, not rest.any())
