"""``veilsum ui``: clear refusals, and a server that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from conf.schema import Config, TrackingConfig
from experiments.ui import main
from server.tracking import DatasetDescription, RunTracker

ROOT = Path(__file__).resolve().parents[2]
DATASET = DatasetDescription("d", "s", "1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_runs_it_says_what_to_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "run `veilsum simulate` first" in capsys.readouterr().err


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        assert main(["--tracking-uri", uri, "--port", str(port)]) == 2
    assert f"--port {port + 1}" in capsys.readouterr().err


def test_it_serves_runs_takes_them_over_http_and_ends_with_its_children(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with RunTracker.start(Config(tracking=TrackingConfig(uri=uri)), dataset=DATASET) as first:
        first.log_round(1, {"val/auc": .7})
    port = free_port()
    ui = subprocess.Popen(
        [sys.executable, "-m", "experiments.ui", "--tracking-uri", uri, "--port", str(port),
         "--no-browser"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True)
    with ui:
        try:
            assert ui.stdout is not None
            line = ui.stdout.readline()
            assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in line
            base = f"http://127.0.0.1:{port}"
            with RunTracker.start(Config(tracking=TrackingConfig(uri=base)),
                                  dataset=DATASET) as second:
                second.log_round(1, {"val/auc": .8})
                second.finish({"test/auc": .7}, {}, texts={"result.md": "x"})
            url = f"{base}/api/2.0/mlflow/runs/get?run_id={second.run_id}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert json.load(answer)["run"]["info"]["status"] == "FINISHED"
        finally:
            ui.send_signal(signal.SIGTERM)
            ui.wait(timeout=30)
    assert ui.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
