"""Errors of numbers: by hand, against a loop, as sums that noise may disturb."""

from __future__ import annotations

import numpy as np
import pytest

from learning.auc import Auc
from learning.customers import Customers
from learning.metrics import MeanAbsoluteError, Metric, interval
from learning.totals import TotalsError
from privacy.clipping import clip_rows

METRIC = MeanAbsoluteError("kWh", 50.0)


def customers(n: int = 30, examples: int = 6, outputs: int = 3, seed: int = 0) -> Customers:
    random = np.random.default_rng(seed)
    mask = random.random((n, examples)) < 0.7
    mask[:, 0] = True
    targets = random.gamma(2.0, size=(n, examples, outputs)).astype(np.float32)
    return Customers(np.zeros((n, examples, 1), np.float32), targets, mask,
                     np.ones_like(targets))


def flat(data: Customers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return data.naive[data.mask], data.targets[data.mask], np.nonzero(data.mask)[0]


def test_mae_is_the_mean_over_customers() -> None:
    scores = np.zeros((3, 2))
    targets = np.array([[1.0, 3.0], [5.0, 5.0], [10.0, 10.0]])
    assert METRIC.exact(scores, targets, np.array([0, 0, 1])) == pytest.approx(6.75)


def test_the_sum_of_statistics_gives_the_exact_value() -> None:
    data = customers()
    rows = METRIC.statistics(data.naive, data)
    assert rows.shape == (30, METRIC.size)
    np.testing.assert_allclose(clip_rows(rows, METRIC.clip), rows, atol=METRIC.clip * 2.0**-30)
    exact = METRIC.exact(*flat(data))
    assert METRIC.released(rows.sum(0)) == pytest.approx(exact)
    assert METRIC.released(rows.sum(0) / 7) == pytest.approx(exact)


def test_bootstrap_matches_a_naive_loop() -> None:
    scores, targets, customer = flat(customers())
    fast = METRIC.bootstrap([scores, scores * 0], targets, customer, resamples=20, seed=7)
    draws = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=20)
    for column, draw in enumerate(draws):
        chosen = [who for who in range(30) for _ in range(draw[who])]
        rows = np.concatenate([np.flatnonzero(customer == who) for who in chosen])
        renamed = np.concatenate([np.full((customer == who).sum(), place)
                                  for place, who in enumerate(chosen)])
        for index, way in enumerate((scores, scores * 0)):
            assert fast[index, column] == pytest.approx(
                METRIC.exact(way[rows], targets[rows], renamed))


def test_padding_and_hostile_scores_stay_within_the_bound() -> None:
    data = customers()
    bad = data.naive.copy()
    bad[~data.mask] = 1e9
    np.testing.assert_array_equal(METRIC.statistics(bad, data),
                                  METRIC.statistics(data.naive, data))
    bad[0, 0] = np.nan
    bad[1, 0] = np.inf
    rows = METRIC.statistics(bad, data)
    assert np.isfinite(rows).all()
    assert (np.linalg.norm(clip_rows(rows, METRIC.clip), axis=1) <= METRIC.clip).all()
    with pytest.raises(ValueError, match="finite"):
        METRIC.exact(bad[data.mask], *flat(data)[1:])


def test_nobody_has_no_value() -> None:
    nothing = np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64)
    assert np.isnan(METRIC.exact(*nothing))
    assert np.isnan(METRIC.bootstrap([nothing[0]], *nothing[1:], resamples=3, seed=0)).all()
    assert np.isnan(METRIC.released(np.array([3.0, -1.0])))
    data = customers()
    unseen = Customers(data.features, data.targets, np.zeros_like(data.mask), data.naive)
    assert not METRIC.statistics(data.naive, unseen).any()


def test_a_customers_error_counts_up_to_the_bound() -> None:
    metric, data = MeanAbsoluteError("kWh", 0.5), customers()
    rows = metric.statistics(data.naive + 100, data)
    np.testing.assert_allclose(rows, [[0.5, 0.25]] * 30)
    assert metric.released(rows.sum(0)) == pytest.approx(0.5)


def test_interval_ignores_resamples_of_one_class() -> None:
    estimate = interval(0.5, np.r_[np.linspace(0, 1, 101), np.nan])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.025, 0.975))
    assert np.isnan(interval(0.5, np.array([np.nan])).low)


@pytest.mark.parametrize("metric", [METRIC, TotalsError(3, 2, 20.0), Auc()])
@pytest.mark.parametrize("shape", [(0, 0, 2), (0, 3, 2), (4, 0, 2)])
def test_nobody_and_no_examples_have_statistics_too(metric: Metric, shape: tuple[int, ...]) -> None:
    """A site without held-out customers takes part in the test like any other."""
    blank = np.zeros(shape, np.float32)
    data = Customers(blank, blank, np.zeros(shape[:2], np.bool_), blank)
    rows = metric.statistics(blank, data)
    assert rows.shape == (shape[0], metric.size) and not rows.any()
