"""Runs that a store holds, found by what a person types and read back as plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from server.mlflow_database import sqlite_file
from server.mlflow_store import check_uri, open_client, quiet_mlflow, store_uri
from server.tracking_names import NOT_FINITE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_SHOWN = 8
"""Of several runs that a text may mean, this many are named."""


class NoSuchRun(LookupError):
    """The text names no run, or more than one; the message says what to type instead."""


@dataclass(frozen=True)
class RecordedRun:
    """``metrics``: the last value of each; ``tags``: without MLflow's own; ``began``: local time.
    ``data``: name and digest of what it trained on, "" if it does not say."""

    run_id: str
    name: str
    status: str
    began: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    data: str


class RunStore:
    """The runs of all experiments of one store. Reads only.

    Raises InvalidConfig for an address that cannot work, NoSuchRun for a store that is not
    there yet.
    """

    def __init__(self, uri: str) -> None:
        uri = store_uri(uri)
        file = sqlite_file(uri)
        if file is not None and not file.exists():
            raise NoSuchRun(f"there is no {file} yet: run `veilsum simulate` first, or name the "
                            "store with tracking.uri=...")
        check_uri(uri)
        quiet_mlflow()
        self._client: MlflowClient = open_client(uri)
        self._experiments = [found.experiment_id for found in self._client.search_experiments()]

    def find(self, text: str) -> RecordedRun:
        """By id, by name, or by the beginning of either if only one run has it.
        Raises NoSuchRun."""
        for condition in _conditions(text):
            found = self._search(condition)
            if len(found) == 1:
                return _read(found[0])
            if found:
                raise NoSuchRun(f"{text!r} may mean {len(found)} runs; take the beginning of an "
                                f"id:\n{_listed(found)}")
        latest = self._search("", most=_SHOWN)
        known = f"; the latest runs:\n{_listed(latest)}" if latest else ": the store holds none"
        raise NoSuchRun(f"no run is called {text!r}, by id or by name{known}")

    def _search(self, condition: str, most: int = 1000) -> list[Run]:
        return list(self._client.search_runs(self._experiments, condition, max_results=most))


def _conditions(text: str) -> list[str]:
    """What a text may mean, most exact first. A quote or a wildcard could only widen it."""
    if not re.fullmatch(r"[^'\"%\\]+", text):
        return []
    return [f"attributes.run_id = '{text}'", f"attributes.run_name = '{text}'",
            f"attributes.run_id LIKE '{text}%'", f"attributes.run_name LIKE '{text}%'"]


def _listed(runs: list[Run]) -> str:
    lines = [f"  {run.info.run_id[:8]}  {_time(run)}  {run.info.run_name}"
             for run in runs[:_SHOWN]]
    more = len(runs) - _SHOWN
    return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)


def _time(run: Run) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000).strftime("%Y-%m-%d %H:%M")


def _read(run: Run) -> RecordedRun:
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    infinite = {key.removeprefix(NOT_FINITE): float(tags.pop(key)) for key in list(tags)
                if key.startswith(NOT_FINITE)}
    sets = [f"{item.dataset.name} {item.dataset.digest}" for item in run.inputs.dataset_inputs]
    return RecordedRun(
        run.info.run_id, run.info.run_name or "", run.info.status, _time(run),
        dict(run.data.params), run.data.metrics | infinite, tags, ", ".join(sets))
