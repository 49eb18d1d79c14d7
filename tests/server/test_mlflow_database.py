"""MLflow's own database: whole or not there, whoever is killed, and one line for what is broken."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conf.schema import Config, InvalidConfig, TrackingConfig
from server.mlflow_store import store_uri
from server.recorded import RunStore
from server.tracking import RunTracker

ROOT = Path(__file__).resolve().parents[2]
_RECORD = """
import sys
from conf.schema import Config, TrackingConfig
from server.tracking import RunTracker
with RunTracker.start(Config(tracking=TrackingConfig(uri=sys.argv[1])), dataset=None) as tracker:
    tracker.log_round(1, {"val/auc": 0.5})
    print(tracker.run_id, flush=True)
"""


def _recorder(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _RECORD, f"sqlite:///{folder}/mlflow.db"], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)


def _config(folder: Path) -> Config:
    return Config(tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


def _records(folder: Path) -> None:
    with RunTracker.start(_config(folder), dataset=None) as tracker:
        tracker.log_round(1, {"val/auc": 0.5})
    from mlflow import MlflowClient

    run = MlflowClient(_config(folder).tracking.uri).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics == {"val/auc": 0.5}


def test_several_first_runs_at_once_are_all_recorded(tmp_path: Path) -> None:
    started = [_recorder(tmp_path) for _ in range(2)]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in started]
    assert [code for _, _, code in ended] == [0, 0], ended
    assert len({out for out, _, _ in ended}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db"]


def test_a_kill_while_the_database_is_made_costs_the_next_run_nothing(tmp_path: Path) -> None:
    new = tmp_path / ".mlflow.db.new"
    with _recorder(tmp_path) as process:
        end = time.monotonic() + 60
        while not (new.exists() and new.stat().st_size) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert new.exists() and not (tmp_path / "mlflow.db").exists()
    _records(tmp_path)
    assert not new.exists()


def _half_made(path: Path, drop: str) -> None:
    """What a kill left in the midst of the database's making, before it was made elsewhere."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM experiments")
        database.execute(f"DROP TABLE {drop}")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()


def test_a_half_made_database_is_moved_aside_and_said(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(made, tmp_path)
    (tmp_path / "mlflow.db.half-made").write_text("an earlier one")
    _half_made(tmp_path / "mlflow.db", "secrets")
    _records(tmp_path)
    assert {path.name for path in tmp_path.glob("*half-made*")} == {
        "mlflow.db.half-made", "mlflow.db.half-made1"}
    assert (tmp_path / "mlflow.db.half-made").read_text() == "an earlier one"
    assert "mlflow.db was half made" in caplog.text


def test_a_database_that_is_whole_stays(made: Path, tmp_path: Path) -> None:
    shutil.copy(made, tmp_path)
    before = (tmp_path / "mlflow.db").stat().st_ino
    _records(tmp_path)
    assert (tmp_path / "mlflow.db").stat().st_ino == before


def _other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE songs (title TEXT)")


def _damaged(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + os.urandom(len(content) - 100))


def _cut(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00" + b"rest")


@pytest.mark.parametrize("harm", [_other_program, _damaged, _cut])
def test_a_file_that_is_no_database_of_mlflows_is_refused_at_once_and_kept(
    harm: Callable[[Path], None], made: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(made, tmp_path))
    harm(path)
    before = path.read_bytes()
    began = time.perf_counter()
    with pytest.raises(InvalidConfig, match=r"tracking\.uri: .*mlflow\.db (is the data|cannot be)"):
        RunTracker.start(_config(tmp_path), dataset=None)
    assert time.perf_counter() - began < 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:",
                                 "sqlite:///file::memory:?cache=shared&uri=true"])
def test_a_store_that_is_gone_at_the_end_is_refused(uri: str) -> None:
    with pytest.raises(InvalidConfig, match="names a file on the disk"):
        RunTracker.start(Config(tracking=TrackingConfig(uri=uri)), dataset=None)


def test_a_folder_that_takes_no_journal_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(made, tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InvalidConfig, match="cannot be written"):
        RunTracker.start(_config(tmp_path), dataset=None)


def test_mlflows_own_variable_stands_in_for_the_default(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(made, tmp_path / "team.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team.db")
    with RunTracker.start(Config(), dataset=None) as tracker:
        assert tracker.run_id
    assert RunStore(Config().tracking.uri).find(tracker.run_id).status == "FINISHED"
    assert not (tmp_path / "mlflow.db").exists()
    assert store_uri("sqlite:///own.db") == "sqlite:///own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InvalidConfig, match="MLFLOW_TRACKING_URI of the environment: "):
        RunTracker.start(Config(), dataset=None)


def test_mlflow_prints_no_traceback_of_what_it_raises() -> None:
    from server.mlflow_store import quiet_mlflow

    quiet_mlflow()
    assert logging.getLogger("mlflow.store.db.utils").level > logging.ERROR
