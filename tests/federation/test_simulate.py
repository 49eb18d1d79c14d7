"""A whole federation in one process, on a small table: what comes out, and what is recorded."""

from __future__ import annotations

import math

import mlflow
import numpy as np
import pytest
import torch

from experiments.simulate import simulate
from learning import registry
from strategies.cohort import TooFewUpdates

ROUND_METRICS = {
    "val/auc", "train/loss", "privacy/epsilon", "privacy/epsilon_if_key_leaks",
    "encryption/upload_bytes_per_parameter", "cohort/answered", "cohort/refused", "time/round_s",
    "time/train_s", "time/encrypt_s", "time/fold_s", "time/open_s", "time/evaluate_s",
    "oracle/val/auc", "oracle/train/loss"}


def _weights(result) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The registered model's parameters, loaded as a user would."""
    mlflow.set_tracking_uri(result.tracking_uri)
    versions = mlflow.MlflowClient().search_model_versions(f"run_id='{result.mlflow_run_id}'")
    model = mlflow.pytorch.load_model(f"models:/{versions[0].name}/{versions[0].version}")
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


@pytest.mark.parametrize("privacy", ["noise_shares", "local_dp", "none"])
def test_every_privacy_runs_encrypted(configure, privacy) -> None:  # type: ignore[no-untyped-def]
    result = simulate(configure(privacy={"name": privacy}))
    assert {row.partner for row in result.comparisons} == {"east", "north", "west", "all",
                                                           "held out"}
    assert all(0 <= row.federated.value <= 1 for row in result.comparisons)
    if privacy == "none":
        assert result.epsilon == math.inf
    else:
        assert 2.5 < result.epsilon <= 3.0
    if privacy == "local_dp":
        assert result.epsilon_if_key_leaks == result.epsilon
    elif privacy == "noise_shares":
        assert result.epsilon_if_key_leaks > result.epsilon


@pytest.mark.parametrize("few", [{}, {"bits": 4, "feedback": True}], ids=["16 bits", "4 bits"])
def test_encryption_changes_not_one_bit_of_the_model(configure, few) -> None:  # type: ignore[no-untyped-def]
    """Without noise the run is deterministic, and the sum is exact in both suites."""
    weights = [
        _weights(simulate(configure(privacy={"name": "none"}, encryption={"name": name, **few})))
        for name in ("shared_key", "shared_key_rlwe", "plaintext")]
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert np.abs(weights[0]).max() > 0


def test_few_bits_with_feedback_under_local_dp(configure) -> None:  # type: ignore[no-untyped-def]
    """Metrics have their 16 bits and their epsilon whatever the update has."""
    result = simulate(configure(privacy={"name": "local_dp"},
                                encryption={"bits": 4, "feedback": True}))
    assert 2.5 < result.epsilon == result.epsilon_if_key_leaks <= 3.0


def test_local_training_of_each_customer(configure) -> None:  # type: ignore[no-untyped-def]
    result = simulate(configure(privacy={"name": "none", "contribution": "training"},
                                strategy={"rounds": 8, "learning_rate": 1.0}))
    row = next(row for row in result.comparisons if row.partner == "all")
    assert row.federated.value > 0.55
    assert registry._load.cache_info().currsize == 0, "a series of runs would keep the data of each"


def test_each_round_is_recorded_at_its_step(configure) -> None:  # type: ignore[no-untyped-def]
    """With little noise: at a small epsilon, a hundred customers' noised histogram may have no
    positives left, and then there is no AUC to record."""
    result = simulate(configure(privacy={"epsilon": 100.0}))
    client = mlflow.MlflowClient(result.tracking_uri)
    run = client.get_run(result.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) >= ROUND_METRICS | {"test/auc", "test/auc_naive",
                                                     "oracle/test/auc", "oracle/test/auc_local",
                                                     "oracle/test/auc_local_east"}
    for name in ROUND_METRICS:
        history = client.get_metric_history(result.mlflow_run_id, name)
        assert [point.step for point in history] == [1, 2, 3], name
    assert run.data.params["privacy.epsilon"] == "100.0"
    assert "collude" in run.data.tags["trust"]
    assert run.data.tags["suite"] == "shared_key"
    figures = {item.path for item in client.list_artifacts(result.mlflow_run_id, "figures")}
    assert figures == {f"figures/{name}.png"
                       for name in ("learning_curve", "gain_per_partner", "epsilon_over_rounds")}


def test_noise_never_follows_the_seed(configure) -> None:  # type: ignore[no-untyped-def]
    first, second = (_weights(simulate(configure())) for _ in range(2))
    assert not np.array_equal(first, second)


def test_a_seed_makes_a_run_without_noise_repeatable(configure) -> None:  # type: ignore[no-untyped-def]
    first, second = (_weights(simulate(configure(privacy={"name": "none"}))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_newcomer_keeps_only_its_few_customers(configure) -> None:  # type: ignore[no-untyped-def]
    config = configure(task={"newcomer_partner": "west", "newcomer_customers": 5})
    result = simulate(config)
    row = next(row for row in result.comparisons if row.partner == "west")
    assert row.customers > 5  # its test customers are all still there


def test_an_impossible_quorum_is_known_before_any_client_starts(configure) -> None:  # type: ignore[no-untyped-def]
    from conf.schema import InvalidConfig

    with pytest.raises(InvalidConfig, match=r"strategy\.quorum"):
        simulate(configure(strategy={"quorum": 9}))


def test_too_few_partners_names_the_cure() -> None:
    assert "strategy.quorum" in str(TooFewUpdates(1, 3, {"west": "no answer in time"}))
