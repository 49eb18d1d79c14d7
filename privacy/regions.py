"""One part of a released vector: its bounds, its grid and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.noise import NoiseSource


@dataclass(frozen=True)
class MetricSums:
    """What rides along with an update, by a task's public bounds. size: numbers of a customer's
    statistics for the metric; clip: L2 bound on them; loss_clip: a customer's loss is clipped to
    [0, loss_clip] before it is summed."""

    size: int
    clip: float
    loss_clip: float


@dataclass(frozen=True)
class Region:
    """One part of the released vector, summed over customers.

    size: coordinates that are opened. kept: further ones, of the same sum, that stay at each
    partner (its head). clip_norm: L2 bound of one customer over both (units of the sum). step:
    units per integer. clamp_steps: range of a partner's coordinate before noise.
    noise_multiplier: std of the noise of a quorum without colluders (one partner's, in
    ``local_dp``) over ``sensitivity``; 0 where the plan adds none. sensitivity: clip_norm after
    rounding, root mean square over the planned rounds. share_std_steps: noise one partner adds.
    mu_squared: privacy loss of one round; mu_squared_once: of the first round in addition. bits: a
    partner's value is a signed integer of this width. largest: no partner's coordinate can exceed
    it, whatever its customers are (units of the sum).
    """

    name: str
    size: int
    clip_norm: float
    step: float
    clamp_steps: int
    noise_multiplier: float
    sensitivity: float
    share_std_steps: float
    mu_squared: float
    mu_squared_once: float
    bits: int
    largest: float
    kept: int = 0

    @property
    def clamp(self) -> float:
        """Bound on a partner's coordinate before noise, in units of the sum."""
        return self.clamp_steps * self.step

    @property
    def whole(self) -> bool:
        """Whether no partner's sum is ever cut to the range."""
        return self.clamp >= self.largest

    @property
    def inflation(self) -> float:
        return self.sensitivity / self.clip_norm

    def quantise(self, total: NDArray[np.floating], noise: NoiseSource) -> NDArray[np.int64]:
        """One partner's clipped sum (size,) -> (size,) clamped, rounded, noised; not yet
        saturated. NaN counts as 0. Raises ValueError on another shape.

        A region without noise is rounded to nearest, others at random (``rounding``).
        """
        return self._rounded(total, self.size, 1, noise)

    def keep(self, total: NDArray[np.floating], shares: int,
             noise: NoiseSource) -> NDArray[np.float64]:
        """One partner's clipped sum (kept,) of what it keeps -> (kept,) in units of the sum, with
        the noise of ``shares`` partners, because nobody else adds any. Nothing saturates."""
        return self._rounded(total, self.kept, shares, noise) * self.step

    def _rounded(self, total: NDArray[np.floating], size: int, shares: int,
                 noise: NoiseSource) -> NDArray[np.int64]:
        if total.shape != (size,):
            raise ValueError(f"region {self.name} has {total.shape}, the plan has {size}")
        finite = np.nan_to_num(
            np.asarray(total, np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
        steps = np.clip(finite / self.step, -self.clamp_steps, self.clamp_steps)
        if self.share_std_steps == 0:
            return np.rint(steps).astype(np.int64)
        floor = np.floor(steps)
        up = noise.uniform(size) < steps - floor
        drawn = noise.discrete_gaussian(self.share_std_steps, shares * size)
        return floor.astype(np.int64) + up + drawn.reshape(shares, size).sum(axis=0)

    def left_over(self, total: NDArray[np.float64], sent: NDArray[np.int64]
                  ) -> NDArray[np.float64]:
        """What of ``total`` (size,) the integers ``sent`` (size,) do not say: exactly their
        difference, 0 where ``total`` is no number. Only for a region without noise."""
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(total), total - sent * self.step, 0.0)
