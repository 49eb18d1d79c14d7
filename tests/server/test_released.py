import numpy as np
import pytest

from learning.metrics import HISTOGRAM_SIZE
from server.released import ReleasedMetrics


def _sums(noise: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    half = HISTOGRAM_SIZE // 2
    rising = np.arange(1.0, half + 1)
    exact = np.concatenate([rising[::-1], rising]) * 20
    return {"histogram": exact + rng.normal(0, noise, HISTOGRAM_SIZE), "loss": np.array([30.0])}


def test_the_mean_over_rounds_is_steadier_than_one_round() -> None:
    rng = np.random.default_rng(0)
    exact = ReleasedMetrics().after_round(_sums(0, rng), 1)["val/auc"]
    single = [abs(ReleasedMetrics().after_round(_sums(60, rng), 1)["val/auc"] - exact)
              for _ in range(40)]
    ends = []
    for _ in range(10):
        metrics = ReleasedMetrics()
        for _ in range(60):
            last = metrics.after_round(_sums(60, rng), 1)
        ends.append(abs(last["val/auc"] - exact))
    assert np.mean(ends) < np.mean(single) / 2


def test_the_loss_is_divided_by_the_public_number() -> None:
    values = ReleasedMetrics().after_round(_sums(0, np.random.default_rng(0)), 60)
    assert values["train/loss"] == pytest.approx(0.5)
