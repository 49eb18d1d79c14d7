"""Metrics that a deployment's operator sees: functions of opened, noised sums only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learning.metrics import auc_from_histogram
from privacy.plan import PrivacyPlan

Vector = NDArray[np.float64]
_DRAWS = 100


class ReleasedMetrics:
    """Follows the opened sums of a run.

    One round's histogram is noisy, while the model moves ever more slowly: the metric comes
    from an exponentially weighted mean over about the last third of the rounds so far (at least
    ``memory``), which is post-processing and costs no privacy. It describes the models that
    were sent out in those rounds, so it lags the newest. The noise's size is public, so every
    AUC comes with its standard error from noise alone (``..._error``).
    """

    def __init__(self, memory: int = 10) -> None:
        self._memory = memory
        self._rounds = 0
        self._weight = 0.0
        self._variance = 0.0
        self._histogram: Vector | float = 0.0

    def after_round(
        self, sums: Mapping[str, Vector], divisor: float, noise_std: float
    ) -> dict[str, float]:
        """``val/auc``, its error, and ``train/loss`` of the model the round began with.

        noise_std: of one histogram cell, in units of the sum.
        """
        self._rounds += 1
        keep = 1 - 1 / max(self._memory, self._rounds / 3)
        self._histogram = keep * self._histogram + sums["histogram"]
        self._variance = keep**2 * self._variance + noise_std**2
        self._weight = keep * self._weight + 1
        mean = np.asarray(self._histogram) / self._weight
        return {
            **_with_error("val/auc", mean, math.sqrt(self._variance) / self._weight),
            "train/loss": float(sums["loss"][0]) / divisor,
        }

    @staticmethod
    def after_test(sums: Mapping[str, Vector], noise_std: Mapping[str, float]) -> dict[str, float]:
        """Of customers that never trained; one release, calibrated on its own."""
        return {
            **_with_error("test/auc", sums["histogram_model"], noise_std["histogram_model"]),
            **_with_error("test/auc_naive", sums["histogram_naive"], noise_std["histogram_naive"]),
        }


def noise_stds(plan: PrivacyPlan, partners: int) -> dict[str, float]:
    """Region -> std of the noise of one opened value, for a sum of ``partners``. Public."""
    return {region.name: region.share_std_steps * region.step * math.sqrt(partners)
            for region in plan.regions}


def _with_error(name: str, histogram: Vector, noise_std: float) -> dict[str, float]:
    """The AUC of a noised histogram, and the spread of AUCs when noise of the same size is
    added once more (parametric bootstrap; its draws are fixed, they protect nobody). Both NaN
    where noise has left no positives or no negatives to rank."""
    again = np.random.default_rng(0).normal(0.0, noise_std, (_DRAWS, histogram.size))
    value = auc_from_histogram(histogram)
    spread = np.array([auc_from_histogram(histogram + noise) for noise in again])
    spread = spread[np.isfinite(spread)]
    known = math.isfinite(value) and spread.size > 1
    return {name: value, f"{name}_error": float(spread.std()) if known else math.nan}
