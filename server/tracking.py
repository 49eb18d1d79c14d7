"""One federation, one MLflow run: written from a thread of its own, so that rounds never wait.

MLflow takes seconds to load and to make its first database, and a tracking server may be slow or
gone for a while; a federation has spent privacy by then and must not fail over a chart.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from conf.schema import Config
from server.mlflow_store import (
    Session,
    check_uri,
    log_bytes,
    log_model,
    logged_steps,
    open_client,
    open_experiment,
    quiet_mlflow,
    reopened,
)
from server.tracking_names import (
    RUN_TAG,
    DatasetDescription,
    default_run_name,
    finite_only,
    flat_params,
    result_metrics,
    run_note,
)
from server.trust import trust_statement

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

__all__ = ["DatasetDescription", "RunTracker", "TrackingFailed", "result_metrics"]

_log = logging.getLogger(__name__)
_LARGEST_BATCH = 100
"""Metrics and tags in one request: MLflow takes 1000 metrics, but only 100 tags."""
_CLOSE_TIMEOUT_S = 60.0


class TrackingFailed(RuntimeError):
    """The store stopped taking what the run measured."""


class _Point(NamedTuple):
    name: str
    value: float
    timestamp_ms: int
    step: int


class _Tag(NamedTuple):
    key: str
    value: str


@dataclass
class RunTracker:
    """Context manager over one MLflow run; make it with :meth:`start`.

    Guarantees: ``log_round`` never waits for MLflow; what was logged is kept when the block ends
    by an exception (status FAILED, tag ``error`` with the type alone, because a message may
    quote data) or by Ctrl-C (KILLED); rounds appear in the order of the calls, usually within
    a tenth of a second. A write that fails is tried again with the next one.
    """

    _uri: str
    _worker: ThreadPoolExecutor
    _session: Future[Session]
    _pending: deque[_Point | _Tag] = field(default_factory=deque)
    _step: int = 0
    _failure: Exception | None = None
    _finished: bool = False

    @classmethod
    def start(cls, config: Config, *, dataset: DatasetDescription | None,
              tags: Mapping[str, str] | None = None,
              params: Mapping[str, str] | None = None,
              continues: Sequence[Mapping[str, float]] | None = None) -> RunTracker:
        """Begin a run in the background. Raises InvalidConfig for an unusable ``tracking.uri``.

        ``params`` stands in for those of ``config``, for a run that sums up several.
        ``continues``: the rounds so far of an interrupted run, whose tag RUN_TAG is among
        ``tags``: it is opened again, and rounds that it lacks are logged.

        What only MLflow can find out (a database of another version, a deleted experiment)
        raises InvalidConfig from the first call after this one.
        """
        check_uri(config.tracking.uri)
        quiet_mlflow()
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        shown = flat_params(config) if params is None else dict(params)
        session = worker.submit(
            _open_run, config, dataset, dict(tags or {}), shown, continues is not None)
        tracker = cls(config.tracking.uri, worker, session)
        if continues:
            tracker._step = len(continues)
            worker.submit(tracker._catch_up, list(continues))
        return tracker

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; waits until the store is open."""
        return self._session.result().run_id

    def log_round(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one round at its step, in one request. Values that are not finite become tags."""
        self._raise_failed_start()
        self._queue(step, metrics)
        self._worker.submit(self._flush)

    def tag(self, key: str, value: str) -> None:
        """Set a tag on the run, for example the name of a refused partner."""
        self._raise_failed_start()
        self._pending.append(_Tag(key, value))
        self._worker.submit(self._flush)

    def finish(self, metrics: Mapping[str, float], figures: Mapping[str, Figure],
               model: nn.Module | None = None, input_example: np.ndarray | None = None,
               registered_name: str = "", texts: Mapping[str, str] | None = None,
               files: Mapping[str, bytes] | None = None) -> None:
        """Log the end of the run and mark it FINISHED.

        End metrics stand at the last round's step. ``figures`` become ``figures/<name>.png``,
        ``texts`` and ``files`` files at their names. Of ``input_example`` only shape and
        dtype are stored, never values. Raises TrackingFailed if the store did not take everything.
        """
        self._queue(self._step, metrics)
        self._worker.submit(
            self._finish, dict(figures), dict(texts or {}), dict(files or {})).result()
        if model is not None:
            if input_example is None:
                raise ValueError("a model is stored together with an input_example")
            session = self._session.result()
            self._worker.submit(
                log_model, session, model, input_example, registered_name, self._step
            ).result()
        self._worker.submit(self._terminate, "FINISHED").result()
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._finished or (self._session.done() and self._session.exception()):
                return
            if kind is None:
                self._worker.submit(self._terminate, "FINISHED").result()
                return
            status = "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
            if status == "FAILED":
                self._pending.append(_Tag("error", kind.__name__))
            closing = self._worker.submit(self._terminate, status)
            try:
                closing.result(timeout=_CLOSE_TIMEOUT_S)
            except Exception as failure:  # the block's own exception matters more
                _log.warning("MLflow did not take the end of the run (%s)", type(failure).__name__)
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _raise_failed_start(self) -> None:
        if self._session.done():
            self._session.result()

    def _queue(self, step: int, metrics: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        shown, rest = finite_only(metrics)
        self._step = max(self._step, step)
        self._pending.extend(_Point(name, value, now_ms, step) for name, value in shown.items())
        self._pending.extend(_Tag(*item) for item in rest.items())

    def _catch_up(self, rounds: list[Mapping[str, float]]) -> None:
        """A run that died may not have written its last rounds."""
        session = self._session.result()
        known = logged_steps(session, set().union(*rounds))
        for step, metrics in enumerate(rounds, start=1):
            if step not in known:
                self._queue(step, metrics)
        self._flush()

    def _flush(self) -> None:
        """Write what is pending, in order; on failure keep it and say so once."""
        from mlflow.entities import Metric, RunTag

        session = self._session.result()
        while self._pending:
            count = min(len(self._pending), _LARGEST_BATCH)
            batch = [self._pending[index] for index in range(count)]
            tags = dict(item for item in batch if isinstance(item, _Tag))
            try:
                session.client.log_batch(
                    session.run_id,
                    metrics=[Metric(*item) for item in batch if isinstance(item, _Point)],
                    tags=[RunTag(*item) for item in tags.items()],
                )
            except Exception as error:
                if self._failure is None:
                    _log.warning("MLflow does not answer (%s); rounds are kept and sent later",
                                 type(error).__name__)
                self._failure = error
                return
            self._failure = None
            for _ in range(count):
                self._pending.popleft()

    def _finish(self, figures: dict[str, Figure], texts: dict[str, str],
                files: dict[str, bytes]) -> None:
        self._flush_or_raise()
        session = self._session.result()
        for name, figure in figures.items():
            session.client.log_figure(session.run_id, figure, f"figures/{name}.png",
                                      save_kwargs={"dpi": 160})
        for name, text in texts.items():
            session.client.log_text(session.run_id, text, name)
        for name, content in files.items():
            log_bytes(session, content, name)

    def _terminate(self, status: str) -> None:
        session = self._session.result()
        try:
            self._flush_or_raise()
        finally:
            session.client.set_terminated(session.run_id, status=status)

    def _flush_or_raise(self) -> None:
        self._flush()
        if self._pending:
            raise TrackingFailed(
                f"MLflow stopped taking metrics ({type(self._failure).__name__}); check the disk "
                "or the server behind tracking.uri. The run's model and ledger are not affected."
            )


def _open_run(config: Config, dataset: DatasetDescription | None, tags: dict[str, str],
              params: dict[str, str], continues: bool) -> Session:
    client = open_client(config.tracking.uri)
    from mlflow.entities import DatasetInput, Param

    experiment_id = open_experiment(client, config.tracking.uri, config.tracking.experiment)
    if continues and (found := reopened(client, experiment_id, tags[RUN_TAG])):
        if config.tracking.parent is not None:  # a sweep that was interrupted has another now
            client.set_tag(found.run_id, "mlflow.parentRunId", config.tracking.parent)
        return found
    tags = {"mlflow.source.name": "veilsum", "mlflow.source.type": "LOCAL", **_version_tags(),
            **trust_statement(config), **tags}
    if config.tracking.parent is not None:
        tags["mlflow.parentRunId"] = config.tracking.parent
    tags.setdefault("mlflow.note.content", run_note(tags.get("trust", "see SECURITY.md")))
    run = client.create_run(experiment_id, tags=tags, run_name=config.tracking.run_name)
    run_id = str(run.info.run_id)
    if config.tracking.run_name is None:
        client.update_run(run_id, name=default_run_name(config, run_id))
    client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
    if dataset is not None:
        client.log_inputs(run_id, datasets=[DatasetInput(_dataset_entity(dataset), tags=[])])
    return Session(client, experiment_id, run_id)


def _dataset_entity(dataset: DatasetDescription) -> Any:
    """As MLflow's MetaDataset: where the data is from and which columns, not one value of it."""
    from mlflow.entities import Dataset

    is_address = dataset.source.startswith(("http://", "https://"))
    columns = [{"name": name, "type": "double", "required": True} for name in dataset.features]
    return Dataset(
        name=dataset.name,
        digest=dataset.digest[:36],
        source_type="http" if is_address else "package",
        source=json.dumps({"url" if is_address else "name": dataset.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"partners": ", ".join(dataset.partners)}),
    )


def _version_tags() -> dict[str, str]:
    """Version of this code, and the commit when it runs from a checkout."""
    tags: dict[str, str] = {}
    try:
        tags["veilsum.version"] = version("veilsum")
    except PackageNotFoundError:
        tags["veilsum.version"] = "not installed"
    git = shutil.which("git")
    if git is not None:
        asked = subprocess.run(  # noqa: S603 fixed arguments
            [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
            text=True, check=False, timeout=5)
        if asked.returncode == 0:
            tags["mlflow.source.git.commit"] = asked.stdout.strip()
    return tags
