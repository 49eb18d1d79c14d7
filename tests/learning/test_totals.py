"""WAPE of totals: by hand, as a noised sum, and over resampled customers."""

from __future__ import annotations

import numpy as np
import pytest

from learning.customers import Customers
from learning.totals import TotalsError

METRIC = TotalsError(periods=2, outputs=1, bound=1e6)


def customers(targets: np.ndarray) -> Customers:
    shape = targets.shape[:2]
    return Customers(np.zeros((*shape, 1), np.float32), targets.astype(np.float32),
                     np.ones(shape, np.bool_), np.zeros_like(targets, np.float32))


def flat(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.reshape(-1, values.shape[-1]), np.repeat(np.arange(len(values)), values.shape[1])


def drawn(n: int = 400, periods: int = 4, outputs: int = 24) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.poisson(0.5, (n, periods, outputs)).astype(np.float64)
    bias = random.normal(0, 0.1, (periods, outputs))
    return targets + bias + random.normal(0, 0.3, targets.shape), targets


def test_by_hand_errors_of_two_customers_cancel_within_a_week_only() -> None:
    targets = np.array([[[2.0], [1.0]], [[0.0], [5.0]]])
    scores = np.array([[[1.0], [1.0]], [[1.0], [2.0]]])
    score, customer = flat(scores)
    assert METRIC.exact(score, flat(targets)[0], customer) == pytest.approx(3 / 8)
    rows = METRIC.statistics(scores, customers(targets))
    assert rows.shape == (2, METRIC.size) and METRIC.released(rows.sum(0)) == pytest.approx(3 / 8)
    assert METRIC.released(rows.sum(0) / 7) == pytest.approx(3 / 8)


def test_scores_that_are_no_numbers() -> None:
    targets = np.ones((1, 2, 1))
    with pytest.raises(ValueError, match="finite"):
        METRIC.exact(np.full((2, 1), np.nan), flat(targets)[0], np.zeros(2, np.int64))
    bad = np.array([[[np.nan], [np.inf]]])
    assert np.isfinite(METRIC.statistics(bad, customers(targets))).all()


def test_a_released_value_is_not_inflated_by_its_noise() -> None:
    scores, targets = drawn()
    metric = TotalsError(4, 24, 1e6)
    rows = metric.statistics(scores, customers(targets))
    true, random = metric.released(rows.sum(0)), np.random.default_rng(1)
    std = 0.8 * float(np.sqrt((rows.sum(0)[:-1] ** 2).mean()))
    noised = [rows.sum(0) + random.normal(0, std, metric.size) for _ in range(200)]
    naive = np.mean([metric.released(total) for total in noised])
    scaled = np.mean([metric.released(total, std) for total in noised])
    assert naive > 1.2 * true and scaled == pytest.approx(true, rel=0.05)
    assert np.isnan(metric.released(rows.sum(0), 100 * std))


def test_resampled_customers_spread_around_the_exact_value() -> None:
    scores, targets = drawn()
    metric = TotalsError(4, 24, 1e6)
    score, customer = flat(scores)
    target, _ = flat(targets)
    values = metric.bootstrap([score, target], target, customer, 200, 0)
    assert values.shape == (2, 200)
    assert values[0].mean() == pytest.approx(metric.exact(score, target, customer))
    assert 0 < values[0].std() < 0.2 * values[0].mean() and (values[1] == 0).all()
    nobody = metric.bootstrap([np.zeros((0, 24))], np.zeros((0, 24)), np.zeros(0, np.int64), 3, 0)
    assert np.isnan(nobody).all()
