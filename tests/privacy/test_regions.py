"""Integers of a release: sensitivity, range, place, bias and noise of what a partner adds."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import chi2

from conf.schema import PrivacyConfig
from privacy.clipping import clip_and_sum
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

RARE = 1e-9


def training(name: str = "noise_shares", *, epsilon: float = 3.0, rounds: int = 100,
             quorum: int = 6, bits: int = 16, size: int = 30, metric: int = 40,
             customers: int = 400, **config: float) -> PrivacyPlan:
    return PrivacyPlan.training(
        PrivacyConfig(name=name, epsilon=epsilon, **config), rounds=rounds, quorum=quorum,
        bits=bits, update_size=size, metric=MetricSums(metric, 1.0, 2.0), customers_bound=customers)


def held_out(name: str = "noise_shares", epsilon: float = 3.0, bits: int = 16) -> PrivacyPlan:
    return PrivacyPlan.test(PrivacyConfig(name=name, epsilon=epsilon), quorum=6, bits=bits,
                            metric=MetricSums(40, 1.0, 2.0), customers_bound=100)


def sums_of(plan: PrivacyPlan, value: float) -> dict[str, NDArray[np.float64]]:
    return {region.name: np.full(region.size, value) for region in plan.regions}


class Fixed(NoiseSource):
    """No noise, and the same rounding for every call: what a coupling of neighbours sees."""

    def __init__(self, uniforms: NDArray[np.float64]) -> None:
        self._uniforms = uniforms

    def uniform(self, size: int) -> NDArray[np.float64]:
        return self._uniforms[:size]

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)


class Silent(NoiseSource):
    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)


def variance_is(draws: NDArray[np.floating], std: float) -> bool:
    statistic = float((draws ** 2).sum()) / std ** 2
    return min(chi2.cdf(statistic, len(draws)), chi2.sf(statistic, len(draws))) > RARE / 2


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, (6, 8), elements=st.floats(-1e3, 1e3) | st.just(math.nan)),
       arrays(np.float64, 8, elements=st.floats(0, 1, exclude_max=True)),
       st.integers(0, 5), st.sampled_from([2, 20, 400]))
def test_leaving_one_customer_out_of_the_quantised_sum(
        rows: NDArray[np.float64], uniforms: NDArray[np.float64], left_out: int,
        customers: int) -> None:
    """From raw rows to integers, clamping included, within the worst case of the region."""
    plan = training(size=8, metric=8, customers=customers)
    for region in plan.regions[:2]:
        def integers(values: NDArray[np.float64], region=region) -> NDArray[np.int64]:
            return region.quantise(clip_and_sum(values, region.clip_norm), Fixed(uniforms))

        change = integers(rows) - integers(np.delete(rows, left_out, axis=0))
        clip_steps = region.clip_norm / region.step
        assert np.linalg.norm(change) <= (clip_steps + math.sqrt(8)) * (1 + 1e-9)


def test_the_charged_shift_covers_the_rounded_customer() -> None:
    """The mean square shift of a customer with the worst fractions, times mu, is what is
    charged; rounding without its charge would not be covered."""
    plan = training(size=2000, bits=14, epsilon=8.0, rounds=50)
    region = plan.region("update")
    variance = plan.shares * region.share_std_steps ** 2
    half = math.floor(region.clip_norm / region.step / math.sqrt(2000)) + 0.5
    steps = half if half * math.sqrt(2000) * region.step <= region.clip_norm else half - 1
    move = np.full(2000, steps * region.step)
    start = np.full(2000, 0.3 * region.step)
    squares = []
    for _ in range(50):
        fixed = Fixed(np.random.default_rng(len(squares)).random(2000))
        change = region.quantise(start + move, fixed) - region.quantise(start, fixed)
        squares.append(float((change ** 2).sum()))
    norm = float(np.linalg.norm(move / region.step)) ** 2
    assert sum(squares) > 50 * (norm + 0.24 * 2000)
    assert sum(squares) <= (50 * region.mu_squared + region.mu_squared_once) * variance


@pytest.mark.parametrize("plan", [training(), training("local_dp"), training("none"), held_out()],
                         ids=["noise_shares", "local_dp", "none", "test"])
def test_values_stay_in_range_and_come_back_within_a_step(plan: PrivacyPlan) -> None:
    limit = 2 ** (plan.bits - 1)
    for value in (0.0, 1e300, -1e300, math.inf, -math.inf, math.nan):
        integers = plan.quantise(sums_of(plan, value), NoiseSource())
        assert integers.dtype == np.int64 and integers.shape == (plan.total_size,)
        assert -limit <= integers.min() and integers.max() < limit
    opened = plan.dequantise(plan.quantise(sums_of(plan, 1.7), Silent()))
    for region in plan.regions:
        assert np.abs(opened[region.name] - 1.7).max() <= region.step
        assert opened[region.name].shape == (region.size,)


def test_regions_keep_their_order_and_place() -> None:
    plan = training("none")
    sums = {"loss": np.array([5.0]), "metric": np.arange(40.0), "update": -np.arange(30.0)}
    opened = plan.dequantise(plan.quantise(sums, NoiseSource()))
    assert list(opened) == ["update", "metric", "loss"]
    for name, values in sums.items():
        assert np.allclose(opened[name], values, atol=plan.region(name).step)


def test_clamping_is_at_the_public_bound() -> None:
    plan = training()
    opened = plan.dequantise(plan.quantise(sums_of(plan, 1e9), Silent()))
    for region in plan.regions:
        assert np.all(opened[region.name] == region.clamp)


def test_random_rounding_is_unbiased() -> None:
    plan = training(size=40_000, metric=40, epsilon=8.0)
    region = plan.region("update")
    total = np.full(region.size, 10.3 * region.step)
    rounded = region.quantise(total, Silent())
    assert set(np.unique(rounded)) == {10, 11}
    assert rounded.mean() == pytest.approx(10.3, abs=6.5 * 0.46 / 200)


@pytest.mark.parametrize("bad", [
    {}, {"update": np.zeros(30)},
    {"update": np.zeros(31), "metric": np.zeros(40), "loss": np.zeros(1)},
    {"update": np.zeros(30), "metric": np.zeros(40), "loss": np.zeros(1), "x": np.zeros(1)}])
def test_other_regions_or_shapes_are_refused(bad: dict[str, NDArray[np.float64]]) -> None:
    with pytest.raises(ValueError, match="plan"):
        training().quantise(bad, NoiseSource())
    with pytest.raises(ValueError, match="plan"):
        training().dequantise(np.zeros(70, np.int64))
    with pytest.raises(ValueError, match="outside the plan"):
        training().epsilon(101)


def noise_of(plan: PrivacyPlan, partners: int, draws: int) -> Iterator[tuple[str, NDArray]]:
    """Noise of a sum of ``partners`` in steps, by region, pooled over draws."""
    releases = [sum(plan.quantise(sums_of(plan, 0.0), NoiseSource()) for _ in range(partners))
                for _ in range(draws)]
    opened = [plan.dequantise(np.asarray(release)) for release in releases]
    for region in plan.regions:
        yield region.name, np.concatenate([values[region.name] for values in opened])


@pytest.mark.parametrize("name", ["noise_shares", "local_dp"])
def test_a_sum_without_the_colluders_shares_has_the_promised_noise(name: str) -> None:
    plan = training(name, size=400, metric=400)
    for region_name, noise in noise_of(plan, plan.shares, 20):
        region = plan.region(region_name)
        promised = region.noise_multiplier * region.sensitivity
        if promised == 0:
            assert name == "local_dp" and region_name == "update" and not noise.any()
            continue
        assert variance_is(noise, promised)
        if region_name != "loss":
            assert not variance_is(noise, 0.9 * promised)
            assert not variance_is(noise, 1.1 * promised)


def test_without_privacy_nothing_is_random_and_nothing_is_claimed() -> None:
    plan = training("none")
    sums = sums_of(plan, 3.21)
    assert np.array_equal(plan.quantise(sums, NoiseSource()), plan.quantise(sums, NoiseSource()))
    assert plan.epsilon(1) == plan.epsilon_if_key_leaks(100) == math.inf
    assert plan.epsilon(0) == 0.0
