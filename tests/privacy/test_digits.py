"""Values in several digits: exact, in range, and only where a partner's noise is its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conf.schema import PrivacyConfig
from privacy.digits import METRIC_BITS, digit_count, joined, split
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.data())
def test_sums_of_digits_give_the_sum_of_the_values(bits: int, width: int, data: st.DataObject
                                                   ) -> None:
    count, end = digit_count(width, bits), 2 ** (width - 1)
    values = np.array(data.draw(st.lists(
        st.sampled_from([-end, end - 1]) | st.integers(-end, end - 1), min_size=6, max_size=6)))
    partners = [split(row, count, bits) for row in values.reshape(2, 3)]
    for digits in partners:
        assert -(2 ** (bits - 1)) <= digits.min() and digits.max() < 2 ** (bits - 1)
    assert np.array_equal(joined(partners[0] + partners[1], count, bits),
                          values.reshape(2, 3).sum(axis=0))


def plan(name: str, bits: int) -> PrivacyPlan:
    return PrivacyPlan.training(
        PrivacyConfig(name=name), rounds=100, quorum=6, bits=bits, update_size=30,
        metric=MetricSums(24, 1.0, 2.0), customers_bound=500)


class Repeated(NoiseSource):
    """The same noise for every plan."""

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.random.default_rng(7).normal(0, std_steps, size).astype(np.int64)

    def uniform(self, size: int) -> NDArray[np.float64]:
        return np.full(size, 0.5)


@pytest.mark.parametrize("name", ["none", "local_dp"])
@pytest.mark.parametrize("bits", [4, 6, 8, 12])
def test_metrics_keep_their_width_where_the_update_has_few_bits(name: str, bits: int) -> None:
    narrow, wide = plan(name, bits), plan(name, METRIC_BITS)
    assert narrow.regions[1:] == wide.regions[1:]
    assert narrow.region("update").step > wide.region("update").step
    assert narrow.epsilon(100) == wide.epsilon(100)
    sums = {"update": np.zeros(30), "metric": np.linspace(-400, 400, 24), "loss": np.array([77.7])}
    found = [made.dequantise(3 * made.quantise(sums, Repeated())) for made in (narrow, wide)]
    for region in ("metric", "loss"):
        assert np.array_equal(found[0][region], found[1][region])


def test_noise_shares_never_split_a_value() -> None:
    """The sums of digits would tell how often partners carried, which no noise covers."""
    for bits in (15, 16, 18):
        made = plan("noise_shares", bits)
        assert made.total_size == sum(region.size for region in made.regions)
        assert {region.bits for region in made.regions} == {bits}
