"""A store that fails: before anything is spent, for a while, for good; and runs told twice."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import server.tracking
from conf.schema import Config, FederationConfig, InvalidConfig, TrackingConfig
from server.tracking import RunTracker, TrackingFailed
from server.tracking_names import KEPT_TAG, RUN_TAG

ROUND = {"cohort/answered": 3.0, "val/auc": 0.5}


@pytest.fixture
def config(made: Path, tmp_path: Path) -> Config:
    shutil.copy(made, tmp_path)
    return Config(tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))


def _runs(config: Config) -> list:  # type: ignore[type-arg]
    client = MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name("veilsum")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


class _Broken(BaseHTTPRequestHandler):
    """An MLflow server of which everything but its health fails."""

    healthy = True

    def _answer(self) -> None:
        self.send_response(200 if self.healthy and self.path == "/health" else 500)
        self.end_headers()

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://user:secret@127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize("healthy", [True, False])
def test_a_server_that_answers_500_is_one_line_before_anything_begins(
    healthy: bool, broken_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Broken, "healthy", healthy)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InvalidConfig, match=r"^tracking\.uri: .*500") as refused:
        RunTracker.start(Config(tracking=TrackingConfig(uri=broken_server)), dataset=None).ready()
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("failing", ["create_experiment", "create_run", "log_batch", "log_dict"])
def test_a_full_disk_is_one_line_before_anything_begins(
    failing: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT]")

    monkeypatch.setattr(MlflowClient, failing, full)
    tracker = RunTracker.start(config, dataset=None)
    with pytest.raises(InvalidConfig, match="disk is full") as refused, tracker:
        tracker.ready()
    assert "SQL:" not in str(refused.value) and "nothing was spent" in str(refused.value)
    assert {run.info.status for run in _runs(config)} <= {"FAILED"}


class _Gone:
    """From now on the store fails at everything, after ``seconds`` each time, as a server that is
    asked again and again; counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.2) -> None:
        self.asked, self.seconds = 0, seconds
        for name in ("log_batch", "set_terminated", "log_artifact", "log_figure"):
            monkeypatch.setattr(MlflowClient, name, self._fail)

    def _fail(self, *_: object, **__: object) -> None:
        self.asked += 1
        time.sleep(self.seconds)
        raise MlflowException("no answer")


def test_a_store_that_is_gone_for_good_is_waited_for_once_not_once_a_round(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.tracking, "sqlite_file", lambda _: None)  # as another's server
    monkeypatch.setattr(server.tracking, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(server.tracking, "_PAUSE_S", 0.3)
    tracker = RunTracker.start(config, dataset=None)
    tracker.ready()
    with monkeypatch.context() as context:
        gone = _Gone(context)
        began = time.perf_counter()
        with pytest.raises(TrackingFailed, match="did not take the model"), tracker:
            for step in range(1, 51):
                tracker.log_round(step, ROUND)
            tracker.record_sealed(b"model")
        assert time.perf_counter() - began < 3.5 and gone.asked < 12
    assert "MLflow did not take the model (MlflowException); trying for" in caplog.text


def test_a_store_that_comes_back_gets_the_model_and_every_round(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.tracking, "sqlite_file", lambda _: None)
    monkeypatch.setattr(server.tracking, "_PAUSE_S", 0.1)
    with RunTracker.start(config, dataset=None) as tracker:
        tracker.ready()
        with monkeypatch.context() as context:
            gone = _Gone(context, 0.0)
            Thread(target=lambda: (time.sleep(0.5), context.undo()), daemon=True).start()
            for step in range(1, 21):
                tracker.log_round(step, ROUND)
            tracker.record_sealed(b"model")
            assert gone.asked >= 2
        tracker.finish({"test/auc": 0.7}, {})
    client = MlflowClient(config.tracking.uri)
    steps = [point.step for point in client.get_metric_history(tracker.run_id, "val/auc")]
    assert steps == list(range(1, 21))
    assert [file.path for file in client.list_artifacts(tracker.run_id, "sealed")]


def test_what_an_interrupted_run_logged_is_not_logged_again(config: Config) -> None:
    """Its newest checkpoint is damaged, so that it makes the last rounds again; or it was killed
    between MLflow's FINISHED and its own end."""
    tags = {RUN_TAG: "ab" * 16}
    for known in (None, [ROUND] * 2, [], [ROUND] * 3):
        with RunTracker.start(config, dataset=None, tags=tags, continues=known) as tracker:
            for step in range(len(known or ()) + 1, 4):
                tracker.log_round(step, ROUND)
            tracker.finish({"test/auc": 0.7, "time/total_s": float(len(known or ()))}, {})
    client = MlflowClient(config.tracking.uri)
    (run,) = _runs(config)
    for name, steps in {"val/auc": [1, 2, 3], "test/auc": [3], "time/total_s": [3]}.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == steps, name
    assert run.info.status == "FINISHED"


class TestCheckpointsLost:
    """MLflow knows a run of the same configuration that did not end, and the folder does not."""

    MEMORY = "0123456789abcdef folder-one"

    def _leave(self, config: Config, memory: str = MEMORY, status: str = "RUNNING") -> str:
        tracker = RunTracker.start(config, dataset=None, memory=memory)
        tracker.ready()
        tracker.tag(KEPT_TAG, memory)
        tracker._worker.submit(lambda: None).result()
        client, run_id = MlflowClient(config.tracking.uri), tracker.run_id
        if status != "RUNNING":
            client.set_terminated(run_id, status)
        return run_id

    def _deployed(self, config: Config) -> Config:
        return Config(federation=FederationConfig(name="deployment"), tracking=config.tracking)

    @pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
    @pytest.mark.parametrize("folder", ["folder-one", "folder-two"])
    def test_a_deployment_refuses_until_a_person_says_so(
        self, status: str, folder: str, config: Config
    ) -> None:
        config = self._deployed(config)
        old = self._leave(config, status=status)
        memory = f"{self.MEMORY.split()[0]} {folder}"
        refused = RunTracker.start(config, dataset=None, memory=memory)
        with pytest.raises(InvalidConfig, match=rf"^state-path: .*{old[:8]}.*begin-anew=true"):
            refused.ready()
        assert len(_runs(config)) == 1
        anew = RunTracker.start(config, dataset=None, memory=memory, anew=True)
        assert old[:8] in anew.ready()[0] and "a second time" in anew.ready()[0]
        assert RunTracker.start(config, dataset=None, memory=memory).ready() == ()

    def test_a_simulation_says_so_and_ends_the_old_one(self, config: Config) -> None:
        old = self._leave(config)
        assert RunTracker.start(config, dataset=None, memory="").ready() == ()
        assert RunTracker.start(
            config, dataset=None, memory=f"{self.MEMORY.split()[0]} folder-two").ready() == ()
        with RunTracker.start(config, dataset=None, memory=self.MEMORY) as anew:
            (warning,) = anew.ready()
        assert old[:8] in warning
        run = MlflowClient(config.tracking.uri).get_run(old)
        assert run.info.status == "KILLED" and anew.run_id in run.data.tags["error"]

    def test_a_run_that_finished_may_be_run_again(self, config: Config) -> None:
        config = self._deployed(config)
        self._leave(config, status="FINISHED")
        assert RunTracker.start(config, dataset=None, memory=self.MEMORY).ready() == ()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_process_that_is_told_to_end_leaves_a_killed_run(
    kind: type[BaseException], config: Config
) -> None:
    """Flower's own answer to SIGTERM is a SystemExit."""
    with pytest.raises(kind), RunTracker.start(config, dataset=None) as tracker:
        for step in range(1, 22):
            tracker.log_round(step, ROUND)
        raise kind
    (run,) = _runs(config)
    assert run.info.status == "KILLED" and "error" not in run.data.tags
    history = MlflowClient(config.tracking.uri).get_metric_history(run.info.run_id, "val/auc")
    assert len(history) == 21


def test_a_hung_server_is_not_waited_for_for_ever() -> None:
    from server.mlflow_store import quiet_mlflow

    quiet_mlflow()
    tries = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert tries * int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 60
