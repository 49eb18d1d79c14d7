"""A model that MLflow does not take is not lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

import experiments.simulate
import server.tracking
from client.export import open_model
from conf.schema import Config, ModelConfig
from keyholder.keys import SharedKey
from learning.customers import InputShape
from learning.models import build_model
from server.tracking import TrackingFailed


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The store takes no model, and nothing after it."""
    def fail(client: MlflowClient, run_id: str, file: object, *_: object, **__: object) -> None:
        if "settings" not in str(file):
            raise OSError("no answer")
        log_artifact(client, run_id, str(file))

    log_artifact = MlflowClient.log_artifact
    monkeypatch.setattr(server.tracking, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(server.tracking, "_PAUSE_S", 0.2)
    for name in ("log_model_artifacts", "log_artifact"):
        monkeypatch.setattr(MlflowClient, name, fail)
    return monkeypatch


def _stopped(config: Config) -> str:
    with pytest.raises(TrackingFailed) as failed:
        experiments.simulate.simulate(config)
    return str(failed.value)


def test_a_run_that_is_not_kept_leaves_its_model_in_a_folder(configure, gone, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # noqa: E501
    said = _stopped(configure(privacy={"name": "none"}, strategy={"rounds": 2}))
    folder = Path(re.search(r"are in (\S+);", said)[1])  # type: ignore[index]
    assert folder.parent == tmp_path and "did not take the model" in said
    saved = torch.load(folder / "model.pt", weights_only=True)
    model = build_model(ModelConfig(**saved["model"]), InputShape(**saved["shape"]), seed=0)
    model.load_state_dict(saved["state_dict"])
    assert (saved["rounds_done"], saved["rounds"]) == (2, 2)
    assert any(value.abs().max() > 0 for value in model.parameters())
    assert len(json.loads((folder / "rounds.json").read_text())) == 2


def test_a_sealed_run_leaves_its_sealed_model(configure, gone, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = configure(strategy={"rounds": 1}, encryption={"opening": "sealed"})
    kept: list[SharedKey] = []
    key = experiments.simulate._key
    gone.setattr(experiments.simulate, "_key", lambda *rest: kept.append(key(*rest)) or kept[0])
    said = _stopped(config)
    folder = Path(re.search(r"are in (\S+);", said)[1])  # type: ignore[index]
    assert np.isfinite(open_model(kept[0], (folder / "model.veilsum").read_bytes())
                       .content.vector).all()
    assert "veilsum export" in said


def test_a_run_that_is_kept_is_recorded_later_also_elsewhere(configure, gone, tmp_path: Path) -> None:  # type: ignore[no-untyped-def] # noqa: E501
    config = configure(privacy={"name": "none"}, strategy={"rounds": 2},
                       federation={"folder": str(tmp_path / "f")})
    said = _stopped(config)
    assert "Nothing is lost" in said and "the same command" in said
    gone.undo()
    ledgers = {path: path.read_bytes() for path in (tmp_path / "f").glob("state/*/ledger.jsonl")}
    elsewhere = replace(config, tracking=replace(
        config.tracking, uri=f"sqlite:///{tmp_path}/other.db"))
    result = experiments.simulate.simulate(elsewhere)
    client = mlflow.MlflowClient(elsewhere.tracking.uri)
    steps = client.get_metric_history(result.mlflow_run_id, "cohort/answered")  # type: ignore[attr-defined]
    assert [point.step for point in steps] == [1, 2]
    assert ledgers == {path: path.read_bytes() for path in ledgers}
