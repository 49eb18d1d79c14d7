"""What stays at a partner has the noise, and the cost, of what is opened."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from conf.schema import PrivacyConfig
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

RARE = 1e-7


def plan_of(name: str = "noise_shares", *, size: int = 30, kept: int = 10) -> PrivacyPlan:
    return PrivacyPlan.training(
        PrivacyConfig(name=name), rounds=100, quorum=6, bits=20, update_size=size, kept=kept,
        metric=MetricSums(24, 1.0, 2.0), customers_bound=400)


@pytest.mark.parametrize("name", ["noise_shares", "local_dp", "none"])
def test_a_head_costs_what_as_many_opened_values_cost(name: str) -> None:
    """The same mechanism in as many dimensions: grid, noise, epsilon and ledger entry."""
    with_head, without = plan_of(name), plan_of(name, size=40, kept=0)
    assert with_head.round_event() == without.round_event()
    assert with_head.start_event() == without.start_event()
    assert with_head.epsilon(100) == without.epsilon(100) <= (
        math.inf if name == "none" else PrivacyConfig().epsilon * (1 + 1e-8))
    assert with_head.epsilon_if_key_leaks(100) == without.epsilon_if_key_leaks(100)
    both = with_head.region("update"), without.region("update")
    assert len({(region.step, region.share_std_steps, region.clamp_steps, region.mu_squared)
                for region in both}) == 1
    assert with_head.total_size == without.total_size - 10


@pytest.mark.parametrize(("factor", "accepted"), [(0.9, False), (1.0, True), (1.1, False)])
def test_a_kept_sum_has_the_noise_of_a_whole_sum(factor: float, accepted: bool) -> None:
    """As much as the sum over all honest partners; a share alone would be a fifth of it."""
    plan = plan_of(kept=20_000)
    region = plan.region("update")
    std = factor * math.sqrt(plan.shares) * region.share_std_steps * region.step
    noise = plan.keep(np.zeros(20_000), NoiseSource())
    low, high = chi2.ppf([RARE / 2, 1 - RARE / 2], noise.size)
    assert (low < (noise**2).sum() / std**2 < high) == accepted
    assert plan.shares == 5


def test_a_kept_sum_is_clamped_rounded_and_never_saturated() -> None:
    plan = plan_of("none", kept=3)
    region = plan.region("update")
    kept = plan.keep(np.array([1e30, -0.25, float("nan")]), NoiseSource())
    assert kept[0] == region.clamp and abs(kept[1] + 0.25) <= region.step / 2 and kept[2] == 0
    with pytest.raises(ValueError, match="plan has 3"):
        plan.keep(np.zeros(4), NoiseSource())


def test_rounding_at_random_is_unbiased_where_it_is_noised() -> None:
    plan = plan_of(kept=20_000)
    region = plan.region("update")
    drawn = plan.keep(np.full(20_000, 0.3 * region.step), NoiseSource()) / region.step
    error = math.sqrt(plan.shares / 20_000) * region.share_std_steps
    assert abs(drawn.mean() - 0.3) < 6 * error
