"""AUC three ways, and the bootstrap against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.auc import (
    BINS,
    HISTOGRAM_SIZE,
    auc,
    auc_from_histogram,
    paired_bootstrap,
    score_histograms,
    smooth_histogram,
)


def sample(size: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = (random.random(size) < 0.3).astype(np.float32)
    return (random.normal(size=size) + 1.0 * targets - 0.8).astype(np.float32), targets


def by_pairs(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    wins = mass = 0.0
    for i in np.flatnonzero(targets > 0.5):
        for j in np.flatnonzero(targets < 0.5):
            pair = weights[i] * weights[j]
            mass += pair
            wins += pair * (0.5 if scores[i] == scores[j] else scores[i] > scores[j])
    return wins / mass if mass else float("nan")


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=1,
                max_size=25))
@settings(max_examples=60, deadline=None)
def test_auc_counts_pairs(rows: list[tuple[int, bool, int]]) -> None:
    scores, targets, weights = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(auc(scores, targets, weights), by_pairs(scores, targets, weights))


def test_auc_of_nothing_and_of_nonsense() -> None:
    assert np.isnan(auc(np.zeros(0), np.zeros(0)))
    assert np.isnan(auc(np.zeros(3), np.ones(3)))
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0.0, np.nan]), np.array([0.0, 1.0]))


def test_histogram_is_near_the_exact_auc() -> None:
    scores, targets = sample()
    rows = score_histograms(scores.reshape(400, 10), targets.reshape(400, 10),
                            np.ones((400, 10), np.bool_))
    assert rows.shape == (400, HISTOGRAM_SIZE) and rows.sum() == 4000
    assert rows[:, BINS:].sum() == targets.sum()
    assert auc_from_histogram(rows.sum(0)) == pytest.approx(auc(scores, targets), abs=0.01)


def test_histogram_ignores_padding_and_survives_nonsense() -> None:
    scores = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    mask = np.array([[True, True, True, False]])
    row = score_histograms(scores, np.zeros((1, 4)), mask)[0]
    assert row.sum() == 3 and row[0] == 2 and row[BINS - 1] == 1


def test_noise_leaves_the_histogram_auc_unbiased() -> None:
    scores, targets = sample()
    clean = score_histograms(scores[:, None], targets[:, None],
                             np.ones((4000, 1), np.bool_)).sum(0)
    noise = np.random.default_rng(1).normal(scale=20, size=(500, HISTOGRAM_SIZE))
    noised = np.array([auc_from_histogram(clean + row) for row in noise])
    assert (clean + noise[0]).min() < 0
    error = noised - auc_from_histogram(clean)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(500) + 1e-3
    assert np.isnan(auc_from_histogram(-clean))


def test_smoothing_keeps_the_mass() -> None:
    histogram = np.random.default_rng(0).normal(size=HISTOGRAM_SIZE)
    smooth = smooth_histogram(histogram)
    for half in (slice(0, BINS), slice(BINS, None)):
        assert smooth[half].sum() == pytest.approx(histogram[half].sum())
    assert np.var(np.diff(smooth)) < np.var(np.diff(histogram))


def test_bootstrap_matches_a_naive_loop() -> None:
    first, targets = sample(300)
    second = np.round(first, 1) + np.random.default_rng(2).normal(size=300).round(1)
    customer = np.random.default_rng(3).integers(0, 40, 300)
    customer[:40] = np.arange(40)
    fast = paired_bootstrap([first, second], targets, customer, resamples=20, seed=7)
    draws = np.random.default_rng(7).multinomial(40, np.full(40, 1 / 40), size=20)
    for column, draw in enumerate(draws):
        rows = np.concatenate([np.flatnonzero(customer == who) for who in range(40)
                               for _ in range(draw[who])])
        for index, scores in enumerate((first, second)):
            assert fast[index, column] == pytest.approx(auc(scores[rows], targets[rows]))
