"""What a run has made is kept where MLflow does not take it."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from learning.registry import make_task, with_start_head
from server.recording import Recording
from strategies.durable import write_whole
from strategies.global_model import RevealedModel


def rescued(work: Recording, results: Mapping[str, float] | None = None) -> str:
    """Keeps the model, each round's metrics and ``results``; says where, and what to do.

    A run with checkpoints has its model there already, and goes on. Another one's is written into a
    new folder where the process works, or, if nothing can be written there, where temporary files
    go. Raises OSError where nothing can be written at all.
    """
    if work.kept.place:
        return (f"Nothing is lost: {work.kept.place} holds the model. Once MLflow answers, or with "
                "another tracking.uri, the same command records all of it and spends nothing more")
    files = {"rounds.json": json.dumps(work.history, indent=1).encode(), **_model(work)}
    if results is not None:
        files["results.json"] = json.dumps(dict(results), indent=1).encode()
    folder = _write(files)
    how = ('README.md, "Using a model", builds its module' if "model.pt" in files else
           "a key holder opens it with `veilsum export`")
    return (f"The model and every round's metrics are in {folder}; {how}. A run that is kept "
            "(federation.folder, or a deployment's state-path) could be recorded later")


def _write(files: Mapping[str, bytes]) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="veilsum-unrecorded-", dir=Path.cwd()))
        _write_into(folder, files)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="veilsum-unrecorded-"))
        _write_into(folder, files)
    return folder


def _write_into(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        write_whole(folder / name, content)


def _model(work: Recording) -> dict[str, bytes]:
    """As `veilsum export` writes it; of a sealed run the bytes that it reads."""
    if not isinstance(work.model, RevealedModel):
        sealed = work.model.outgoing("test")
        assert isinstance(sealed, bytes)
        return {"model.veilsum": sealed}
    import torch

    config, out = work.config, io.BytesIO()
    module = with_start_head(config, work.model.server.final)
    torch.save({"format": "veilsum model 1", "state_dict": module.state_dict(),
                "task": config.task.name, "model": asdict(config.model),
                "shape": asdict(make_task(config).shape), "rounds": config.strategy.rounds,
                "rounds_done": work.model.round}, out)
    return {"model.pt": out.getvalue()}
