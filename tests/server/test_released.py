import numpy as np
import pytest

from learning.auc import HISTOGRAM_SIZE, Auc
from server.released import ReleasedMetrics


def _sums(noise: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    half = HISTOGRAM_SIZE // 2
    rising = np.arange(1.0, half + 1)
    exact = np.concatenate([rising[::-1], rising]) * 20
    return {"metric": exact + rng.normal(0, noise, HISTOGRAM_SIZE), "loss": np.array([30.0])}


def test_the_mean_over_rounds_is_steadier_than_one_round() -> None:
    rng = np.random.default_rng(0)
    exact = ReleasedMetrics(Auc()).after_round(_sums(0, rng), 1, 0.0)["val/auc"]
    single = [abs(ReleasedMetrics(Auc()).after_round(_sums(60, rng), 1, 60.0)["val/auc"] - exact)
              for _ in range(40)]
    ends = []
    for _ in range(10):
        metrics = ReleasedMetrics(Auc())
        for _ in range(60):
            last = metrics.after_round(_sums(60, rng), 1, 60.0)
        ends.append(abs(last["val/auc"] - exact))
    assert np.mean(ends) < np.mean(single) / 2


def test_the_loss_is_divided_by_the_public_number() -> None:
    values = ReleasedMetrics(Auc()).after_round(_sums(0, np.random.default_rng(0)), 60, 0.0)
    assert values["train/loss"] == pytest.approx(0.5)


def test_the_error_says_how_far_noise_moves_the_auc() -> None:
    rng = np.random.default_rng(1)
    exact = ReleasedMetrics(Auc()).after_round(_sums(0, rng), 1, 0.0)
    assert exact["val/auc_error"] == 0
    released = [ReleasedMetrics(Auc()).after_round(_sums(30, rng), 1, 30.0) for _ in range(60)]
    spread = np.std([values["val/auc"] for values in released])
    stated = np.mean([values["val/auc_error"] for values in released])
    assert 0.5 * spread < stated < 2 * spread


def test_without_positives_there_is_neither_auc_nor_error() -> None:
    sums = {"metric": np.full(HISTOGRAM_SIZE, -1000.0), "loss": np.array([1.0])}
    values = ReleasedMetrics(Auc()).after_round(sums, 1, 1.0)
    assert np.isnan(values["val/auc"]) and np.isnan(values["val/auc_error"])
