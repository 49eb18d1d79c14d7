"""The sampler's table is exact, its draws follow it, and nothing can be replayed.

Draws come from the operating system and cannot be seeded: bounds are set so that a right
sampler fails once in 10^9 runs.
"""

import inspect
import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

import privacy.noise as noise_module
from privacy.noise import MAX_STD_STEPS, NoiseSource

RARE = 1e-9


def variance_is(draws: NDArray[np.int64], std: float) -> bool:
    """Two-sided chi-square test of the variance, at ``RARE``."""
    statistic = float((draws.astype(float) ** 2).sum()) / std ** 2
    return min(chi2.cdf(statistic, len(draws)), chi2.sf(statistic, len(draws))) > RARE / 2


@pytest.mark.parametrize("std", [0.5, 4.0, 123.4])
def test_the_table_is_the_cumulative_distribution(std: float) -> None:
    table = noise_module._table(std)
    with localcontext() as context:
        context.prec = 60
        weights = [(-Decimal(int(k)) ** 2 / (2 * Decimal(std) ** 2)).exp() for k in table.values]
        total = sum(weights)
        running = Decimal(0)
        for weight, high, low in zip(weights, table.high, table.low, strict=True):
            running += weight
            entry = (Decimal(int(high)) * 2 ** 64 + int(low) + 1) / 2 ** 128
            assert abs(entry - running / total) < Decimal(2) ** -120


def test_a_tie_in_the_first_64_bits_is_settled_by_the_next(
        monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise_module._table(4.0)
    middle = len(table.values) // 2
    for low, expected in ((table.low[middle], 0), (table.low[middle] + np.uint64(1), 1)):
        answers = iter([table.high[middle:middle + 1], np.array([low], np.uint64)])
        monkeypatch.setattr(noise_module, "_uint64", lambda size, answers=answers: next(answers))
        assert NoiseSource().discrete_gaussian(4.0, 1) == [expected]


@pytest.mark.parametrize("extreme", [0, 2 ** 64 - 1])
def test_extreme_uniforms_stay_in_the_table(
        monkeypatch: pytest.MonkeyPatch, extreme: int) -> None:
    monkeypatch.setattr(noise_module, "_uint64", lambda size: np.full(size, extreme, np.uint64))
    drawn = NoiseSource().discrete_gaussian(4.0, 3)
    assert set(drawn) == {int(math.copysign(56, extreme - 1))}


@pytest.mark.parametrize("std", [0.7, 4.0, 2000.0])
def test_draws_have_the_promised_std_and_no_other(std: float) -> None:
    draws = NoiseSource().discrete_gaussian(std, 20_000)
    assert draws.dtype == np.int64
    exact = std if std > 2 else math.sqrt(_variance(std))
    assert variance_is(draws, exact)
    assert not variance_is(draws, 0.9 * exact)
    assert not variance_is(draws, 1.1 * exact)
    assert abs(draws.mean()) < norm.isf(RARE) * exact / math.sqrt(len(draws))


def _variance(std: float) -> float:
    support = np.arange(-60, 61)
    weights = np.exp(-support ** 2 / (2 * std ** 2))
    return float((weights * support ** 2).sum() / weights.sum())


def test_the_frequencies_of_single_values() -> None:
    std, size = 2.3, 200_000
    draws = NoiseSource().discrete_gaussian(std, size)
    support = np.arange(-7, 8)
    weights = np.exp(-support ** 2 / (2 * std ** 2))
    expected = size * weights / np.exp(-np.arange(-60, 61) ** 2 / (2 * std ** 2)).sum()
    seen = np.array([(draws == value).sum() for value in support])
    assert chi2.sf(((seen - expected) ** 2 / expected).sum(), len(support)) > RARE


def test_the_sum_of_the_shares_of_a_quorum_without_colluders_has_the_promised_std() -> None:
    quorum, colluders, std = 6, 1, 60.0
    share = std / math.sqrt(quorum - colluders)
    honest = sum(NoiseSource().discrete_gaussian(share, 20_000)
                 for _ in range(quorum - colluders))
    assert variance_is(honest, std)
    missing = sum(NoiseSource().discrete_gaussian(share, 20_000)
                  for _ in range(quorum - colluders - 1))
    assert not variance_is(missing, std)


def test_uniforms_cover_the_unit_interval() -> None:
    draws = NoiseSource().uniform(100_000)
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    assert chi2.sf(((counts - 2000) ** 2 / 2000).sum(), 49) > RARE


@pytest.mark.parametrize("draw", [
    lambda source: source.discrete_gaussian(100.0, 50), lambda source: source.uniform(50)])
def test_nothing_replays(draw: Callable[[NoiseSource], NDArray[np.float64]]) -> None:
    np.random.seed(0)
    first = draw(NoiseSource())
    np.random.seed(0)
    source = NoiseSource()
    assert not np.array_equal(first, draw(source))
    assert not np.array_equal(draw(source), draw(source))
    assert not inspect.signature(NoiseSource).parameters


def test_the_range_of_std() -> None:
    assert not NoiseSource().discrete_gaussian(0, 5).any()
    assert NoiseSource().discrete_gaussian(3.0, 0).shape == (0,)
    for std in (-1.0, 2 * MAX_STD_STEPS, math.nan):
        with pytest.raises(ValueError, match="std"):
            NoiseSource().discrete_gaussian(std, 1)


def _curves(std: float, shift: int) -> list[tuple[float, float, float]]:
    """(epsilon, delta of the discrete Gaussian, of the continuous one), both exact."""
    support = np.arange(-int(20 * std), int(20 * std) + shift + 1)
    total = np.exp(-support ** 2 / (2 * std ** 2)).sum()
    density = np.exp(-support ** 2 / (2 * std ** 2)) / total
    moved = np.exp(-(support - shift) ** 2 / (2 * std ** 2)) / total
    mu = shift / std
    curves = []
    for epsilon in np.linspace(0.01, 6 * mu, 60):
        discrete = np.maximum(moved - math.exp(epsilon) * density, 0).sum()
        continuous = (norm.cdf(mu / 2 - epsilon / mu)
                      - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))
        curves.append((float(epsilon), float(discrete), float(continuous)))
    return [curve for curve in curves if curve[2] > 1e-12]


@pytest.mark.parametrize(("std", "shift"), [(64.0, 2), (64.0, 17), (64.0, 64), (500.0, 300)])
def test_the_delta_of_the_discrete_gaussian_is_covered_by_what_is_kept_aside(
        std: float, shift: int) -> None:
    for _, discrete, continuous in _curves(std, shift):
        assert discrete <= continuous * (1 + 1 / 2000)


def test_a_coarse_lattice_exceeds_the_continuous_delta_as_predicted() -> None:
    """Why a least noise in steps is required: x^2 / (24 S^2), 1% at 9 steps."""
    std, shift = 9.0, 3
    excess = {epsilon: discrete / continuous - 1 for epsilon, discrete, continuous
              in _curves(std, shift)}
    assert max(excess.values()) > 5e-3
    for epsilon, value in excess.items():
        quantile = epsilon * std / shift + shift / std
        assert value <= 1.5 * max(quantile, 1) ** 2 / (24 * std ** 2)
