"""The same run on Flower's own engine. The comparison runs where the extra ``ray`` is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from experiments.cli import main
from server.mlflow_store import quiet_mlflow

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is an optional extra: pip install -c constraints.txt -e '.[ray]'")


def _overrides(table: Path, *more: str) -> list[str]:
    return [f"task.path={table}", "task.categories=[bread,coffee,milk]", "strategy.rounds=2",
            "privacy=none", *more]


def test_without_ray_the_error_says_how_to_install_it(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *rest: None if name == "ray" else found(name, *rest))
    assert main(["simulate", *_overrides(table, "federation=ray")]) == 2
    told = capsys.readouterr().err
    assert ".[ray]" in told and "federation=local" in told


@needs_ray
def test_ray_and_the_local_grid_train_the_same_model(table: Path, tmp_path: Path) -> None:
    """Without noise nothing in a run is random: every exact metric is equal, to the last bit."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for engine in ("local", "ray"):
        subprocess.run(
            [sys.executable, "-m", "experiments.cli", "simulate",
             *_overrides(table, f"federation={engine}", "federation.split_into=5",
                         f"tracking.uri={store}")],
            cwd=tmp_path, env=environment, check=True, timeout=300)
    quiet_mlflow()
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("veilsum")
    assert experiment is not None
    first, second = client.search_runs([experiment.experiment_id])
    assert {run.data.params["federation.name"] for run in (first, second)} == {"local", "ray"}
    exact = [{name: value for name, value in run.data.metrics.items()
              if name.startswith("oracle/")} for run in (first, second)]
    assert exact[0] == exact[1] and first.data.metrics["cohort/answered"] == 5
