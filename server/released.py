"""Metrics that a deployment's operator sees: functions of opened, noised sums only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learning.metrics import auc_from_histogram

Vector = NDArray[np.float64]


class ReleasedMetrics:
    """Follows the opened sums of a run.

    One round's histogram is noisy, while the model moves ever more slowly: the metric comes
    from an exponentially weighted mean over about the last third of the rounds so far (at least
    ``memory``), which is post-processing and costs no privacy. It describes the models that
    were sent out in those rounds, so it lags the newest.
    """

    def __init__(self, memory: int = 10) -> None:
        self._memory = memory
        self._rounds = 0
        self._weight = 0.0
        self._histogram: Vector | float = 0.0

    def after_round(self, sums: Mapping[str, Vector], divisor: float) -> dict[str, float]:
        """``val/auc`` and ``train/loss`` of the model the round began with."""
        self._rounds += 1
        keep = 1 - 1 / max(self._memory, self._rounds / 3)
        self._histogram = keep * self._histogram + sums["histogram"]
        self._weight = keep * self._weight + 1
        return {
            "val/auc": auc_from_histogram(np.asarray(self._histogram) / self._weight),
            "train/loss": float(sums["loss"][0]) / divisor,
        }

    @staticmethod
    def after_test(sums: Mapping[str, Vector]) -> dict[str, float]:
        """Of customers that never trained; one release, calibrated on its own."""
        return {
            "test/auc": auc_from_histogram(sums["histogram_model"]),
            "test/auc_naive": auc_from_histogram(sums["histogram_naive"]),
        }
