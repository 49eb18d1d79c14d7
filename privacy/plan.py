"""What a run releases, and what that costs: calibrated once from public inputs, then fixed.

One round opens one integer vector, the sum over partners, made of regions that all come from
the same customers. The noise of a region is ``noise_multiplier`` times its sensitivity after
rounding, so the joint release is one Gaussian mechanism with
mu^2 = sum over regions of (squared shift) / (noise variance), and rounds add up:
mu_T^2 = once + T * per_round (``rounding`` derives both terms). Epsilon is the exact one of
mu-GDP at 0.999 delta.

Why the continuous Gaussian may be reported. The noise is integer: each share is a discrete
Gaussian of std s >= 4 steps, the sum of n of them is within tau = 10 sum_k exp(-2 pi^2 s^2
k/(k+1)) of a discrete Gaussian (arXiv 2102.06387, theorem 1), and tau < 1e-67 at s = 4. One
discrete Gaussian has the zCDP of the continuous one (arXiv 2004.00010, theorem 4), so the RDP
and zCDP bounds are proven up to tau. The (epsilon, delta) reported is the tighter one of the
continuous Gaussian. In one dimension the discrete delta exceeds it: by the Euler-Maclaurin
formula, by a relative x^2 / (24 S^2) with x the normal quantile of the tail and S the std of the
whole noise in steps. S >= 64 is required, which makes it less than delta / 2000 for delta down
to 1e-12. The tests check the exact curve; in many dimensions and rounds, where shifts that are
not all alike smooth the lattice out, this step is an argument, not a theorem.

That delta / 2000, and two times delta / 4000, are kept aside of the Gaussian's delta over the
whole run. The latter pay, multiplied by 1 + e^epsilon, for two bad events: the rounding bound
may fail, and a partner's value may leave the signed integers and saturate. Saturation is charged
because it happens to each partner's value before the sum: a sum of saturated values is not a
function of the noised sum. Where each partner's own noise already suffices (``local_dp``)
saturation is post-processing and free, and so is splitting a value into digits (``digits``).
The sampler is within 2^-60 of ideal (``noise``).
Clamping happens before the noise and is 1-Lipschitz: it costs no privacy, only bias.

What stays at a partner (a head, ``kept`` coordinates of a region) must be as private as what is
opened: the next round's gradients of all its customers are taken at that head, so an exact one
would carry each customer past the noise, through the others. So give the adversary the heads as
well. Let u be a customer's contribution over both parts, opened and kept, clipped together to C.
It changes the opened sum and its own partner's kept sum, and no other partner's; together by u,
||u||_2 <= C. The opened sum holds the noise of ``shares`` partners at least; :meth:`keep` adds that
of as many to the kept sum, fresh, at the one partner: the same law in every coordinate, and the
same step and random rounding. So opened and kept sum are one Gaussian mechanism in size + kept
dimensions, and all of the above holds for it, rounding bound (with d = size + kept) and tau
included. The head is a function of kept sums, and models, metrics and the test release are
functions of heads, opened sums and other customers: post-processing, and adaptive composition
over the rounds, which an adversary may interleave as it likes. Clamped, but never saturated, the
kept sum has no part in that event. If a key leaks, the opened part is protected by one share and
the kept part by all: ``shares`` times mu^2 bounds both. In ``local_dp`` DP-SGD clips and noises the
gradient of the whole model, so the head is a part of what is already private.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import dp_accounting as dp
import numpy as np
from numpy.typing import NDArray

from conf.schema import PrivacyConfig
from privacy.accounting import RELATION, UNIT, gaussian_epsilon, sampled_epsilon
from privacy.digits import digit_count, joined, split
from privacy.noise import NoiseSource
from privacy.planning import DELTA_FOR_GAUSSIAN, Setting, test_regions, training_regions
from privacy.regions import MetricSums, Region


@dataclass(frozen=True)
class PrivacyPlan:
    """Regions of every round's release and their cost. Two parties with the same configuration
    hold equal plans. Made by :meth:`training` and :meth:`test`.

    bits: of a signed digit; a value of a wider region takes several. shares: partners whose noise
    a released sum is sure to hold, quorum - colluders (1 in ``local_dp``). local_noise_multiplier:
    sigma of the DP-SGD steps of ``local_dp``, else 0.
    """

    mode: str
    rounds: int
    bits: int
    delta: float
    shares: int
    regions: tuple[Region, ...]
    local_noise_multiplier: float = 0.0
    local_steps: int = 0
    sample_rate: float = 1.0
    failure: float = 0.0
    """Probability, over the whole run, that what is released is not what its events say: that the
    rounding bound breaks, or a value saturates (see above)."""

    @classmethod
    def training(cls, config: PrivacyConfig, *, rounds: int, quorum: int, bits: int,
                 update_size: int, metric: MetricSums, customers_bound: int,
                 expected_customers: int | None = None, feedback: bool = False,
                 kept: int = 0) -> PrivacyPlan:
        """Regions update (update_size,), metric (metric.size,), loss (1,), every round.

        kept: parameters that stay at the partners, clipped together with the update.
        customers_bound: public estimate of the customers of the largest partner;
        expected_customers: of all partners; only ``local_dp`` uses it, for the range of the
        weighted deltas (None: wide enough for any split). feedback: of a partner's update its
        next one takes up what does not fit.
        Guarantee: epsilon(rounds) <= config.epsilon at config.delta, unless the mode is none.
        Raises PlanImpossible, naming the override to change.
        """
        setting = Setting(config, rounds, quorum, bits, customers_bound, feedback)
        regions, sigma = training_regions(
            setting, update_size, metric, expected_customers or customers_bound, kept)
        return cls._of(setting, regions, sigma)

    @classmethod
    def test(cls, config: PrivacyConfig, *, quorum: int, bits: int, metric: MetricSums,
             customers_bound: int,
             regions: tuple[str, ...] = ("metric_model", "metric_naive")) -> PrivacyPlan:
        """One release over held-out customers, who took no part in training: the ``regions``,
        ``metric.size`` statistics each, share config.epsilon equally (in mu^2).

        Raises PlanImpossible."""
        setting = Setting(config, 1, quorum, bits, customers_bound)
        return cls._of(setting, test_regions(setting, regions, metric), 0.0)

    @classmethod
    def _of(cls, setting: Setting, regions: tuple[Region, ...], sigma: float) -> PrivacyPlan:
        config = setting.config
        kinds = {"noise_shares": 2, "local_dp": 1}.get(config.name, 0)  # saturation is free there
        return cls(config.name, setting.rounds, setting.bits, config.delta, setting.shares, regions,
                   local_noise_multiplier=sigma, local_steps=config.local_steps if sigma else 0,
                   sample_rate=config.sample_rate if sigma else 1.0,
                   failure=kinds * setting.failure if kinds else 0.0)

    @property
    def total_size(self) -> int:
        """Digits of one release."""
        return sum(self._digits)

    @property
    def _digits(self) -> list[int]:
        return [region.size * digit_count(region.bits, self.bits) for region in self.regions]

    def region(self, name: str) -> Region:
        """Raises KeyError."""
        return {region.name: region for region in self.regions}[name]

    def quantise(self, sums: Mapping[str, NDArray[np.floating]],
                 noise: NoiseSource) -> NDArray[np.int64]:
        """One partner's clipped sums by region -> (total_size,) digits to encrypt.

        Guarantee: with sums whose sensitivity is each region's clip_norm, and fresh ``noise``,
        the sum over a quorum is what :meth:`epsilon` accounts; every digit lies in
        [-2^(bits-1), 2^(bits-1) - 1]. NaN counts as 0. Raises ValueError on regions or shapes
        that are not the plan's.
        """
        if set(sums) != {region.name for region in self.regions}:
            raise ValueError(f"regions {sorted(sums)} are not the plan's")
        return np.concatenate([
            self._split(region, region.quantise(sums[region.name], noise))
            for region in self.regions])

    def _split(self, region: Region, values: NDArray[np.int64]) -> NDArray[np.int64]:
        limit = 2 ** (region.bits - 1)
        return split(np.clip(values, -limit, limit - 1), digit_count(region.bits, self.bits),
                     self.bits)

    def keep(self, total: NDArray[np.floating], noise: NoiseSource) -> NDArray[np.float64]:
        """One partner's sum (kept,) of what it keeps of its updates -> (kept,), rounded and with
        all the noise that the sum over a quorum would have. Raises ValueError on another shape.
        """
        return self.region("update").keep(total, self.shares, noise)

    def dequantise(self, total: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """(total_size,) sums of digits, opened -> region name -> (size,) in units of the sums."""
        if total.shape != (self.total_size,):
            raise ValueError(f"{total.shape} values opened, the plan has {self.total_size}")
        ends = np.cumsum(self._digits)[:-1]
        return {
            region.name: joined(part, digit_count(region.bits, self.bits), self.bits) * region.step
            for region, part in zip(self.regions, np.split(total, ends), strict=True)}

    def epsilon(self, rounds: int) -> float:
        """Epsilon at ``delta`` of what ``rounds`` rounds released (0 <= rounds <= planned)."""
        return self._epsilon(rounds, 1)

    def epsilon_if_key_leaks(self, rounds: int) -> float:
        """The same if one partner's own ciphertexts were opened: only its own share protects."""
        return self._epsilon(rounds, self.shares)

    def _epsilon(self, rounds: int, factor: int) -> float:
        if not 0 <= rounds <= self.rounds:
            raise ValueError(f"{rounds} rounds are outside the plan of {self.rounds}")
        if self.mode == "none":
            return math.inf if rounds else 0.0
        if rounds == 0:
            return 0.0
        delta = DELTA_FOR_GAUSSIAN * self.delta
        if self.local_steps:
            return sampled_epsilon(self.sample_rate, self.local_noise_multiplier, self.local_steps,
                                   self._mu_squared, self._mu_squared_once, rounds, delta)
        mu_squared = rounds * self._mu_squared + self._mu_squared_once
        return gaussian_epsilon(math.sqrt(factor * mu_squared), delta)

    @property
    def _mu_squared(self) -> float:
        return math.fsum(region.mu_squared for region in self.regions)

    @property
    def _mu_squared_once(self) -> float:
        return math.fsum(region.mu_squared_once for region in self.regions)

    def noise_to_signal(self, partners: int, customers: int) -> float:
        """Norm of the noise on the updates of the whole run, over that of the largest sum that
        ``customers`` could give, clipped and all pulling the same way. Public; 0 without noise.

        Noise adds up by the root of the rounds, a signal by the rounds, so this hardly depends
        on their number: about sqrt(parameters) / (mu * customers).
        """
        update = self.region("update")
        if self.local_steps:
            noise = self.local_noise_multiplier * math.sqrt(partners / self.local_steps)
            full = self.sample_rate * customers
        else:
            noise = update.share_std_steps * update.step * math.sqrt(partners)
            full = update.clip_norm * customers
        return noise * math.sqrt(update.size / self.rounds) / full

    def round_event(self) -> dp.DpEvent:
        """What each round releases."""
        if self.mode == "none":
            return dp.NonPrivateDpEvent()
        metrics = dp.GaussianDpEvent(1 / math.sqrt(self._mu_squared))
        if not self.local_steps:
            return metrics
        step = dp.PoissonSampledDpEvent(
            self.sample_rate, dp.GaussianDpEvent(self.local_noise_multiplier))
        return dp.ComposedDpEvent([dp.SelfComposedDpEvent(step, self.local_steps), metrics])

    def start_event(self) -> dp.DpEvent:
        """What a partner's first round of the run costs in addition (from ``rounding``)."""
        once = self._mu_squared_once
        return dp.GaussianDpEvent(1 / math.sqrt(once)) if once else dp.NoOpDpEvent()

    def event(self, rounds: int) -> dp.DpEvent:
        """All that ``rounds`` rounds from the first one on release."""
        if rounds == 0:
            return dp.NoOpDpEvent()
        return dp.ComposedDpEvent(
            [self.start_event(), dp.SelfComposedDpEvent(self.round_event(), rounds)])

    def describe(self) -> dict[str, float | str]:
        """The plan in plain values, for a run's record."""
        values: dict[str, float | str] = {
            "mode": self.mode, "unit": UNIT, "neighbours": RELATION, "delta": self.delta,
            "epsilon": self.epsilon(self.rounds),
            "epsilon_if_key_leaks": self.epsilon_if_key_leaks(self.rounds),
            "rounds": self.rounds, "shares": self.shares, "bits": self.bits,
            "local_noise_multiplier": self.local_noise_multiplier,
        }
        for region in self.regions:
            values |= {
                f"{region.name}/noise_multiplier": region.noise_multiplier,
                f"{region.name}/sensitivity_inflation": region.inflation,
                f"{region.name}/share_std_steps": region.share_std_steps,
                f"{region.name}/step": region.step,
                f"{region.name}/clamp": region.clamp,
            }
        return values
