"""The integer grid of one step of local DP-SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LEAST_STD_STEPS, _MOST_STD_STEPS = 1024.0, 65536.0
"""A sampling table of twice the second would not fit (``privacy.noise``)."""


@dataclass(frozen=True)
class NoiseGrid:
    """``step``: of the integer grid on which a step's sum is noised; ``std_steps``: of the noise.

    A clipped sum is rounded to the grid before noise comes to it, and what is rounded may differ by
    one step more in each of d coordinates: by C / step + sqrt(d) steps in L2 for neighbours. The
    noise is the multiplier times that, so the release is a discrete Gaussian of exactly the
    multiplier (arXiv 2004.00010), and nothing of it depends on how floats are spaced. At 1024
    steps and more it is accounted as a continuous one (``privacy.plan``: 64 would do).
    """

    step: float
    std_steps: float

    @property
    def std(self) -> float:
        """Of the noise, in the unit of the sum."""
        return self.std_steps * self.step

    @classmethod
    def of(cls, size: int, noise_multiplier: float, clip_norm: float) -> NoiseGrid:
        """As coarse as rounding may be while it raises the noise by at most 1%. Raises ValueError
        where it would more than double it: no sampling table is fine enough for that ``size``."""
        rounding = noise_multiplier * math.sqrt(size)
        wanted = 2.0 ** math.ceil(math.log2(max(100 * rounding, _LEAST_STD_STEPS)))
        std_steps = min(wanted, _MOST_STD_STEPS)
        if 2 * rounding > std_steps:
            raise ValueError(f"{size} parameters are too many for a noise multiplier of "
                             f"{noise_multiplier:.3g} in each local step, where rounding would "
                             "cost more than the noise")
        return cls(clip_norm / (std_steps / noise_multiplier - math.sqrt(size)), std_steps)
