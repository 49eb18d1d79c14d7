"""A value in several digits, each summed on its own. Pure arithmetic on integers.

What the sums of the digits tell beyond the sum of the values, how often the partners carried, must
be nobody's secret: so only where a partner's values are not protected by the others' noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

METRIC_BITS = 16
"""Width of a metric's value where it may be split, if ``encryption.bits`` is less."""


def digit_count(width: int, bits: int) -> int:
    """Signed digits of ``bits`` >= 2 bits that hold every signed integer of ``width`` bits.

    Base B, n digits reach from -(B/2) R to (B/2 - 1) R without a gap, R = (B^n - 1) / (B - 1), and
    (B/2 - 1) / (B - 1) >= 1/3 for B >= 4, so n bits > width is enough: (2^(width+1) - 1) / 3 is at
    least 2^(width-1).
    """
    return 1 if width <= bits else -(-(width + 1) // bits)


def split(values: NDArray[np.int64], count: int, bits: int) -> NDArray[np.int64]:
    """(n,) integers of at most ``count`` digits -> (count n,): the lowest digit of all values,
    then the next. Digits lie in [-2^(bits-1), 2^(bits-1) - 1]."""
    if count == 1:
        return values
    half, parts = 1 << (bits - 1), []
    for _ in range(count):
        digit = ((values + half) & (2 * half - 1)) - half
        values = (values - digit) >> bits
        parts.append(digit)
    return np.concatenate(parts)


def joined(sums: NDArray[np.int64], count: int, bits: int) -> NDArray[np.int64]:
    """(count n,) sums of digits over any partners -> (n,) the sums of their values."""
    rows = sums.reshape(count, -1)
    return sum((row << (place * bits) for place, row in enumerate(rows)),
               start=np.zeros(rows.shape[1], np.int64))
