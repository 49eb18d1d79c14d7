"""AUC: exact, from a released histogram, and its household bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.customers import Customers
from learning.metrics import draw_customers

BINS = 12
HISTOGRAM_SIZE = 2 * BINS
"""Length of one histogram: BINS cells of negatives, then BINS cells of positives."""
EDGES = np.linspace(-2.75, 0.5, BINS - 1)
"""Public inner edges of the bins, in logits: chances of 6% to 62%. Few cells, where the scores
are: each further cell adds noise, each wider one hides order (at epsilon 3 and 2,000 customers
the AUC of one round's histogram has a standard deviation of about 0.13). A customer's histogram is
clipped, so that in the sum customers count about alike, however many examples they have: where
those with many are easier to predict, a released AUC lies below the exact one, for every model."""
_CELLS = 4_000_000
"""Numbers of one bootstrap block: bounds memory."""

Vector = NDArray[np.floating]


@dataclass(frozen=True)
class Auc:
    """Chance that a positive scores above a negative; the metric of yes-or-no questions. A
    customer's statistics are the histogram of its scores, by answer."""

    name: str = "auc"
    unit: str = ""
    higher_is_better: bool = True
    size: int = HISTOGRAM_SIZE
    clip: float = 1.0

    def exact(self, scores: Vector, targets: Vector, customer: NDArray[np.int64]) -> float:
        return auc(np.ravel(scores), np.ravel(targets))

    def bootstrap(self, ways: Sequence[Vector], targets: Vector, customer: NDArray[np.int64],
                  resamples: int, seed: int | list[int]) -> NDArray[np.float64]:
        return paired_bootstrap([np.ravel(way) for way in ways], np.ravel(targets),
                                np.repeat(customer, targets.shape[-1]), resamples, seed)

    def statistics(self, scores: Vector, customers: Customers) -> NDArray[np.float32]:
        outputs = customers.targets.shape[-1]
        flat = (len(customers), customers.targets.shape[1] * outputs)
        mask = np.repeat(customers.mask[..., None], outputs, axis=-1)
        return score_histograms(scores.reshape(flat), customers.targets.reshape(flat),
                                mask.reshape(flat))

    def released(self, total: Vector, noise_std: float = 0.0) -> float:
        return auc_from_histogram(total)


def auc(scores: Vector, targets: Vector, weights: Vector | None = None) -> float:
    """Chance that a positive scores above a negative, ties half. (m,) each; NaN if a class is
    missing (or has no weight). Raises ValueError on scores that are not finite."""
    weight = np.ones((1, len(scores))) if weights is None else np.asarray(weights)[None]
    return float(_weighted_aucs(scores, targets, lambda order: weight[:, order])[0])


def score_histograms(
    scores: Vector, targets: Vector, mask: NDArray[np.bool_], bins: int = BINS
) -> NDArray[np.float32]:
    """(n, e) logits -> (n, 2 * bins) counts per customer: negatives, then positives.

    A score that is not a number falls into the lowest bin. Callers clip each row.
    """
    edges = EDGES if bins == BINS else np.linspace(EDGES[0], EDGES[-1], bins - 1)
    cell = np.searchsorted(edges, np.nan_to_num(scores, nan=-np.inf), side="right")
    cell = cell + bins * (targets > 0.5)
    rows = np.broadcast_to(np.arange(len(scores))[:, None], cell.shape)
    index = (rows * 2 * bins + cell)[mask]
    counts = np.bincount(index, minlength=len(scores) * 2 * bins)
    return counts.reshape(len(scores), 2 * bins).astype(np.float32)


def auc_from_histogram(histogram: Vector) -> float:
    """AUC of a (possibly noised) histogram (2 * bins,), in [0, 1]; NaN when noise leaves a class
    without mass.

    Cells may be negative and are not clamped: clamping would bias the answer towards 0.5.
    """
    negatives, positives = np.split(np.asarray(histogram, np.float64), 2)
    mass = negatives.sum(), positives.sum()
    if not (mass[0] > 0 and mass[1] > 0):
        return float("nan")
    below = np.cumsum(negatives) - negatives / 2
    return float(np.clip(positives @ below / (mass[0] * mass[1]), 0.0, 1.0))


def smooth_histogram(histogram: Vector) -> NDArray[np.float64]:
    """(2 * bins,) each class averaged over neighbouring cells (1, 2, 1) / 4; keeps the mass."""
    halves = np.split(np.asarray(histogram, np.float64), 2)
    padded = [np.pad(half, 1, mode="edge") for half in halves]
    return np.concatenate([(part[:-2] + 2 * part[1:-1] + part[2:]) / 4 for part in padded])


def paired_bootstrap(
    scores: Sequence[Vector], targets: Vector, customer: NDArray[np.int64],
    resamples: int, seed: int | list[int],
) -> NDArray[np.float64]:
    """(s, resamples) AUC of each of s scores (m,) over the same resampled customers.

    Whole customers are drawn with replacement; ``customer`` (m,) says whose an example is.
    """
    n = int(customer.max(initial=-1)) + 1
    if n == 0:
        return np.full((len(scores), resamples), np.nan)
    draws = draw_customers(n, resamples, seed)
    block = max(1, _CELLS // len(targets))
    parts = [draws[start:start + block] for start in range(0, resamples, block)]
    return np.stack([
        np.concatenate([
            _weighted_aucs(score, targets, lambda order, part=part: part[:, customer[order]])
            for part in parts])
        for score in scores])


def _weighted_aucs(scores: Vector, targets: Vector, weights_in) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
    """(r,) AUC under r weightings; ``weights_in(order)`` gives them (r, m) in sorted order."""
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    order = np.argsort(scores, kind="stable")
    ranked = np.asarray(scores)[order]
    weights = weights_in(order).astype(np.float64)
    positives = weights * (np.asarray(targets)[order] > 0.5)
    negatives = weights - positives
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else []
    if len(starts) == 0:
        return np.full(len(weights), np.nan)
    if len(starts) < len(ranked):
        positives = np.add.reduceat(positives, starts, axis=1)
        negatives = np.add.reduceat(negatives, starts, axis=1)
    below = np.cumsum(negatives, axis=1)
    mass = positives.sum(axis=1) * below[:, -1]
    below -= negatives / 2
    below *= positives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, below.sum(axis=1) / mass, np.nan)
