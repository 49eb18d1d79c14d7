"""A store of MLflow's, made once: making one takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.mlflow_database import make_ready
from server.mlflow_store import quiet_mlflow


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow just made."""
    quiet_mlflow()
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    make_ready(f"sqlite:///{path}", "tracking.uri")
    return path
