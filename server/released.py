"""Metrics that a deployment's operator sees: functions of opened, noised sums only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.metrics import Metric
from privacy.plan import PrivacyPlan

Vector = NDArray[np.float64]
_DRAWS = 100


class ReleasedMetrics:
    """Follows the opened sums of a run.

    One round's statistics are noisy, while the model moves ever more slowly: the metric comes
    from an exponentially weighted mean over about the last third of the rounds so far (at least
    ``memory``), which is post-processing and costs no privacy. It describes the models that
    were sent out in those rounds, so it lags the newest. The noise's size is public, so every
    value comes with its standard error from noise alone (``..._error``).
    """

    def __init__(self, metric: Metric, memory: int = 10) -> None:
        self._metric = metric
        self._memory = memory
        self._rounds = 0
        self._weight = 0.0
        self._variance = 0.0
        self._sum: Vector | float = 0.0

    def state(self) -> dict[str, object]:
        """Plain values that :meth:`restore` goes on from; functions of what was released."""
        return {"rounds": self._rounds, "weight": self._weight, "variance": self._variance,
                "sum": np.asarray(self._sum).tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rounds, self._weight = state["rounds"], state["weight"]
        self._variance, self._sum = state["variance"], np.asarray(state["sum"])

    def after_round(
        self, sums: Mapping[str, Vector], divisor: float, noise_std: float
    ) -> dict[str, float]:
        """``val/<metric>``, with its error from noise alone, of the models so far, the newest that
        which the round began with, whose ``train/loss`` it is.

        noise_std: of one number of the statistics, in units of the sum.
        """
        self._rounds += 1
        keep = 1 - 1 / max(self._memory, self._rounds / 3)
        self._sum = keep * self._sum + sums["metric"]
        self._variance = keep**2 * self._variance + noise_std**2
        self._weight = keep * self._weight + 1
        mean = np.asarray(self._sum) / self._weight
        return {
            **self._with_error("val", "", mean, math.sqrt(self._variance) / self._weight),
            "train/loss": float(sums["loss"][0]) / divisor,
        }

    def after_test(
        self, sums: Mapping[str, Vector], noise_std: Mapping[str, float]
    ) -> dict[str, float]:
        """Of customers that never trained; one release, calibrated on its own."""
        return {
            **self._with_error("test", "", sums["metric_model"], noise_std["metric_model"]),
            **self._with_error("test", "_naive", sums["metric_naive"], noise_std["metric_naive"]),
        }

    def _with_error(self, split: str, ending: str, total: Vector,
                    noise_std: float) -> dict[str, float]:
        """The metric of a noised sum, and the spread of values when noise of the same size is
        added once more (parametric bootstrap; its draws are fixed, they protect nobody). Both
        NaN where noise has left nothing to divide by."""
        again = np.random.default_rng(0).normal(0.0, noise_std, (_DRAWS, total.size))
        value = self._metric.released(total, noise_std)
        spread = np.array([self._metric.released(total + noise, math.sqrt(2) * noise_std)
                           for noise in again])
        spread = spread[np.isfinite(spread)]
        known = math.isfinite(value) and spread.size > 1
        name = f"{split}/{self._metric.name}{ending}"
        return {name: value, f"{name}_error": float(spread.std()) if known else math.nan}


def noise_stds(plan: PrivacyPlan, partners: int) -> dict[str, float]:
    """Region -> std of the noise of one opened value, for a sum of ``partners``. Public."""
    return {region.name: region.share_std_steps * region.step * math.sqrt(partners)
            for region in plan.regions}
