"""Calibration: from a public configuration to the regions of a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conf.schema import MOST_BITS, PrivacyConfig
from privacy.accounting import calibrate_sampled, gaussian_epsilon, gaussian_mu
from privacy.digits import METRIC_BITS
from privacy.grid import (
    Grid,
    Need,
    PlanImpossible,
    choose_grid,
    narrowest,
    plain_grid,
    tail_quantile,
)
from privacy.local_grid import NoiseGrid
from privacy.regions import MetricSums, Region

DELTA_FOR_GAUSSIAN = 0.999
"""Part of delta for the Gaussian mechanism. Of the rest, half pays for the lattice, a quarter
each for rounding and saturation (``plan``)."""
METRIC_SHARE = 0.8
"""Of the metrics' part of the privacy loss; the loss gets the rest."""
_MOST_PARTNERS = 1024
_FREE_TAIL = 6.0
_MORE = "use a larger privacy.epsilon, fewer strategy.rounds or a smaller model"
_UPDATE_HEADROOM = 2.0
_FEEDBACK_REACH = 4.0
"""Of d numbers, d/16 at most are 4 times as large as their root mean square."""


@dataclass(frozen=True)
class _Part:
    """A region before calibration; share: its part of mu^2; kept: of the ``size`` coordinates,
    those that stay at the partners."""

    name: str
    size: int
    clip_norm: float
    share: float
    kept: int = 0


@dataclass(frozen=True)
class Setting:
    """Public inputs of a plan. Raises PlanImpossible without a partner that adds noise."""

    config: PrivacyConfig
    rounds: int
    quorum: int
    bits: int
    customers_bound: int
    feedback: bool = False

    def __post_init__(self) -> None:
        if self.config.name == "noise_shares" and self.quorum <= self.config.colluders:
            raise PlanImpossible(
                "privacy.colluders", f"{self.config.colluders} of a quorum of {self.quorum} leaves "
                "nobody to add noise", "use privacy=local_dp or a larger strategy.quorum")

    @property
    def shares(self) -> int:
        """Partners whose noise a released sum is sure to hold."""
        return self.quorum - self.config.colluders if self.config.name == "noise_shares" else 1

    @property
    def mu(self) -> float:
        """What the whole run may spend, as a Gaussian."""
        return gaussian_mu(self.config.epsilon, DELTA_FOR_GAUSSIAN * self.config.delta)

    @property
    def failure(self) -> float:
        """Probability of each of two kinds of bad event (rounding, saturation), such that each
        costs delta / 4000 even at the epsilon of a leaked key."""
        worst = gaussian_epsilon(self.mu * math.sqrt(self.shares),
                                 DELTA_FOR_GAUSSIAN * self.config.delta)
        return (1 - DELTA_FOR_GAUSSIAN) * self.config.delta / (4 * (1 + math.exp(min(worst, 200))))

    def widths(self, region: str) -> tuple[int, int]:
        """Fewest and most bits of a value. A metric's may travel in several digits (``digits``),
        and so have more bits than the update's many, where a partner's own noise protects it, or
        none does."""
        if region == "update" or self.config.name == "noise_shares":
            return self.bits, self.bits
        return max(self.bits, METRIC_BITS), MOST_BITS

    def tail(self, coordinates: int) -> float:
        """Normal quantile that the grid must hold of every noise share."""
        if self.config.name != "noise_shares":
            return _FREE_TAIL
        return tail_quantile(self.failure, self.rounds * _MOST_PARTNERS * coordinates)


def training_regions(setting: Setting, update_size: int, metric: MetricSums,
                     expected_customers: int, kept: int) -> tuple[tuple[Region, ...], float]:
    """Regions of a training round, and the noise multiplier of local DP-SGD (0 without)."""
    config = setting.config
    riding = config.metrics_share
    parts = (
        _Part("update", update_size + kept, config.clip_norm, 1 - riding, kept),
        _Part("metric", metric.size, metric.clip, riding * METRIC_SHARE),
        _Part("loss", 1, metric.loss_clip, riding * (1 - METRIC_SHARE)),
    )
    if config.name != "local_dp":
        return _regions(parts, setting), 0.0
    regions = _regions(parts[1:], setting)
    sigma = _local_noise_multiplier(setting, regions)
    try:
        std = NoiseGrid.of(parts[0].size, sigma, config.clip_norm).std
    except ValueError as error:
        raise PlanImpossible("privacy.epsilon", str(error), _MORE) from None
    reach = _local_reach(setting, std, expected_customers, _narrowing(parts[0], setting))
    return (_plain(parts[0], reach, setting), *regions), sigma


def test_regions(setting: Setting, names: tuple[str, ...],
                 metric: MetricSums) -> tuple[Region, ...]:
    """Regions of the release over held-out customers: statistics with equal parts."""
    return _regions(
        tuple(_Part(name, metric.size, metric.clip, 1 / len(names)) for name in names), setting)


def _regions(parts: tuple[_Part, ...], setting: Setting) -> tuple[Region, ...]:
    tail = setting.tail(sum(part.size for part in parts))
    regions: list[Region] = []
    refusals: list[PlanImpossible] = []
    for part in parts:
        try:
            regions.append(_region(part, setting, tail, setting.failure / len(parts)))
        except PlanImpossible as refusal:
            refusals.append(refusal)
    if refusals:
        # The most demanding region speaks, so that its advice suffices for all.
        raise max(refusals, key=lambda refusal: refusal.enough_bits or math.inf)
    return tuple(regions)


def _region(part: _Part, setting: Setting, tail: float, failure: float) -> Region:
    full = setting.customers_bound * part.clip_norm
    if setting.config.name == "none":
        return _plain(part, full * _narrowing(part, setting), setting)
    noise_multiplier = math.sqrt(setting.rounds / part.share) / setting.mu
    # Room for customers who all pull the same way: evenly over the coordinates for an update,
    # into four of a metric's statistics (the busiest cells of a histogram).
    spread = part.size if part.name == "update" else min(part.size, 4)
    need = Need(part.name, part.size, part.clip_norm, noise_multiplier, setting.shares, full,
                max(part.clip_norm, full / math.sqrt(spread)), setting.rounds, failure, tail)

    def holds_all(grid: Grid) -> bool:
        return grid.clamp_steps * grid.step >= full

    grid = narrowest(*setting.widths(part.name), lambda bits: choose_grid(need, bits), holds_all)
    variance = setting.shares * grid.share_std_steps ** 2
    return Region(
        part.name, part.size - part.kept, part.clip_norm, grid.step, grid.clamp_steps,
        noise_multiplier, grid.inflation * part.clip_norm, grid.share_std_steps,
        grid.shift.per_round / variance, grid.shift.once / variance, grid.bits, full, part.kept)


def _plain(part: _Part, reach: float, setting: Setting) -> Region:
    grid = plain_grid(reach, setting.widths(part.name)[0])
    return Region(part.name, part.size - part.kept, part.clip_norm, grid.step, grid.clamp_steps,
                  0.0, part.clip_norm, 0.0, 0.0, 0.0, grid.bits, reach, part.kept)


def _local_noise_multiplier(setting: Setting, metrics: tuple[Region, ...]) -> float:
    config = setting.config
    try:
        return calibrate_sampled(
            config.epsilon, DELTA_FOR_GAUSSIAN * config.delta, config.sample_rate,
            config.local_steps, math.fsum(region.mu_squared for region in metrics),
            math.fsum(region.mu_squared_once for region in metrics), setting.rounds)
    except ValueError as error:
        raise PlanImpossible("privacy.epsilon", str(error), _MORE) from None


def _narrowing(part: _Part, setting: Setting) -> float:
    """Range of a coordinate over the L2 bound of the sum. With feedback what passes the range is
    not lost but comes later, so it need not hold a sum that lies in one coordinate."""
    if part.name != "update" or not setting.feedback:
        return 1.0
    return min(1.0, _FEEDBACK_REACH / math.sqrt(part.size))


def _local_reach(setting: Setting, std: float, expected_customers: int,
                 narrowing: float) -> float:
    """Public range of one coordinate of a DP-SGD delta weighted by n / mean(n). ``std``: of the
    noise on a step's sum.

    A step moves at most lr C (a batch of the expected size) plus noise of std
    lr std / (q n); the weight is at most ``customers_bound`` x partners / all, and weight x
    1 / (q n) is partners / (q all) for every partner. Twice that, as batches vary in size.
    """
    config = setting.config
    weight = max(1.0, setting.customers_bound * setting.quorum / expected_customers)
    pull = (config.local_steps * config.local_learning_rate * config.clip_norm * weight
            * narrowing)
    noise = (math.sqrt(config.local_steps) * config.local_learning_rate * std
             * setting.quorum / (config.sample_rate * expected_customers))
    return _UPDATE_HEADROOM * (pull + _FREE_TAIL * noise)
