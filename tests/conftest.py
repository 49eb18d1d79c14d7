"""What no test may leave to the next one."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mlflow.set_tracking_uri`` sets the variable for the whole process, and runs honour it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
