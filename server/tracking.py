"""One federation, one MLflow run: written from a thread of its own, so that rounds never wait.

MLflow takes seconds to load and to make its first database, and a tracking server may be slow or
gone for a while; a federation has spent privacy by then and must not fail over a chart.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from conf.schema import Config
from server.mlflow_database import sqlite_file
from server.mlflow_run import Start, open_run
from server.mlflow_store import (
    Session,
    check_uri,
    log_bytes,
    log_model,
    logged_steps,
    quiet_mlflow,
    store_uri,
)
from server.tracking_names import (
    SEALED_FILE,
    UNFINISHED_TAG,
    DatasetDescription,
    finite_only,
    flat_params,
    result_metrics,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

__all__ = ["DatasetDescription", "RunTracker", "TrackingFailed", "result_metrics"]

_log = logging.getLogger(__name__)
_LARGEST_BATCH = 100
"""Metrics and tags in one request: MLflow takes 1000 metrics, but only 100 tags."""
_CLOSE_TIMEOUT_S = 60.0
_PATIENCE_S, _PAUSE_S = 60.0, 5.0
"""How long the end of a run waits for a server that does not answer, for the model and again for
what the test gave; and between two tries."""
_GONE_TIMEOUT_S = 5.0
"""For the last word to such a server."""


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
    a tenth of a second; each round once, also where a continued run logs it again. A write that
    fails is tried again with a later one, and the end of a run waits for a bounded time.
    """

    uri: str
    """Of the store; may hold a login."""
    _worker: ThreadPoolExecutor
    _session: Future[Session]
    _pending: deque[_Point | _Tag] = field(default_factory=deque)
    _step: int = 0
    _failure: Exception | None = None
    _not_before: float = 0.0
    """When a store that failed is tried again: time.monotonic."""
    _gone: bool = False
    _has_results: bool = False
    _finished: bool = False
    _has_model: bool = False

    @classmethod
    def start(cls, config: Config, *, dataset: DatasetDescription | None,
              tags: Mapping[str, str] | None = None,
              params: Mapping[str, str] | None = None,
              continues: Sequence[Mapping[str, float]] | None = None,
              memory: str = "", anew: bool = False) -> RunTracker:
        """Begin a run in the background. Raises InvalidConfig for an unusable ``tracking.uri``.

        ``params`` stands in for those of ``config``, for a run that sums up several.
        ``continues``: the rounds so far of an interrupted run, whose tag RUN_TAG is among
        ``tags``: it is opened again, and rounds that it lacks are logged. ``memory``, ``anew``:
        see :class:`server.mlflow_run.Start`.

        What only MLflow can find out (a database of another version, a deleted experiment, a full
        disk) raises InvalidConfig from the first call after this one.
        """
        uri = store_uri(config.tracking.uri)
        config = replace(config, tracking=replace(config.tracking, uri=uri))
        check_uri(uri)
        quiet_mlflow()
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        shown = flat_params(config) if params is None else dict(params)
        session = worker.submit(open_run, config, dataset, dict(tags or {}), shown,
                                Start(continues is not None, memory, anew))
        tracker = cls(uri, worker, session)
        for step, metrics in enumerate(continues or (), start=1):  # its last may not be there
            tracker._queue(step, metrics)
        return tracker

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; waits until the store is open."""
        return self._session.result().run_id

    def ready(self) -> tuple[str, ...]:
        """Wait until the run is in MLflow: what only MLflow can find out is found out before the
        rounds spend anything. Returns warnings: runs that this one begins anew."""
        return self._session.result().lost

    def log_round(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one round at its step, in one request. Values that are not finite become tags."""
        self._raise_failed_start()
        self._queue(step, metrics)

    def tag(self, key: str, value: str) -> None:
        """Set a tag on the run, for example the name of a refused partner."""
        self._raise_failed_start()
        self._submit(_Tag(key, value))

    def record_model(self, model: nn.Module, input_example: np.ndarray,
                     registered_name: str = "") -> None:
        """Store and register the final model; waits. A continued run that has one keeps it. Of
        ``input_example`` only shape and dtype are stored, never values. Raises TrackingFailed."""
        self._record(log_model, model, input_example, registered_name, self._step)

    def record_sealed(self, content: bytes) -> None:
        """Store the bytes of the run's final model, which nobody here can read; waits. Raises
        TrackingFailed."""
        self._record(log_bytes, content, SEALED_FILE)

    def finish(self, metrics: Mapping[str, float], figures: Mapping[str, Figure],
               texts: Mapping[str, str] | None = None) -> None:
        """Log the end of the run and mark it FINISHED.

        End metrics stand at the last round's step. ``figures`` become ``figures/<name>.png``,
        ``texts`` files at their names. Raises TrackingFailed if the store did not take everything.
        """
        self._insist("the results", self._finish, self._points(self._step, metrics),
                     dict(figures), dict(texts or {}))
        self._insist("the end of the run", self._terminate, "FINISHED")
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._finished or (self._session.done() and self._session.exception()):
                return
            if kind is None:
                self._session.result()
                self._insist("the end of the run", self._terminate, "FINISHED")
                return
            stopped = issubclass(kind, KeyboardInterrupt | SystemExit)  # Flower's, on SIGTERM
            if not stopped:
                self._pending.append(_Tag("error", kind.__name__))
            if self._has_model:
                self._pending.append(_Tag(UNFINISHED_TAG, "the final model is recorded, but not "
                                          "all that its test gave"))
            closing = self._worker.submit(self._terminate, "KILLED" if stopped else "FAILED")
            try:
                closing.result(timeout=_GONE_TIMEOUT_S if self._gone else _CLOSE_TIMEOUT_S)
            except Exception as failure:  # the block's own exception matters more
                _log.warning("MLflow did not take the end of the run (%s)", type(failure).__name__)
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _raise_failed_start(self) -> None:
        if self._session.done():
            self._session.result()

    def _record(self, write: Callable[..., None], *what: object) -> None:
        self._insist("the model", write, self._session.result(), *what)
        self._has_model = True

    def _insist(self, name: str, write: Callable[..., None], *what: object) -> None:
        """Write, however long a large model takes; a server that does not answer gets _PATIENCE_S
        to come back. Raises TrackingFailed."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._worker.submit(write, *what).result()
            except Exception as error:
                # A file on this machine does not come back by itself.
                if sqlite_file(self.uri) or time.monotonic() + _PAUSE_S >= end:
                    self._gone = True
                    raise TrackingFailed(
                        f"MLflow did not take {name} ({type(error).__name__}); check the disk or "
                        "the server behind tracking.uri") from error
                _log.warning("MLflow did not take %s (%s); trying for %.0f s more", name,
                             type(error).__name__, end - time.monotonic())
            time.sleep(_PAUSE_S)

    def _queue(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = max(self._step, step)
        self._submit(*self._points(step, metrics))

    def _points(self, step: int, metrics: Mapping[str, float]) -> list[_Point | _Tag]:
        now_ms = int(time.time() * 1000)
        shown, rest = finite_only(metrics)
        return [*(_Point(name, value, now_ms, step) for name, value in shown.items()),
                *(_Tag(*item) for item in rest.items())]

    def _submit(self, *items: _Point | _Tag) -> None:
        self._worker.submit(self._take, items)

    def _take(self, items: Sequence[_Point | _Tag]) -> None:
        """Queue and write what a continued run does not have yet. A store that just failed is left
        alone for a while, or a hundred rounds would each wait for it."""
        steps = self._session.result().steps
        self._pending.extend(item for item in items
                             if isinstance(item, _Tag) or item.step not in steps)
        if time.monotonic() >= self._not_before:
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
                self._not_before = time.monotonic() + _PAUSE_S
                return
            self._failure = None
            for _ in range(count):
                self._pending.popleft()

    def _finish(self, points: Sequence[_Point | _Tag], figures: dict[str, Figure],
                texts: dict[str, str]) -> None:
        session = self._session.result()
        if not self._has_results:  # else this is another try
            self._pending.extend(item for item in points if not self._has(item))
            self._has_results = True
        self._flush_or_raise()
        for name, figure in figures.items():
            session.client.log_figure(session.run_id, figure, f"figures/{name}.png",
                                      save_kwargs={"dpi": 160})
        for name, text in texts.items():
            session.client.log_text(session.run_id, text, name)

    def _has(self, item: _Point | _Tag) -> bool:
        """Whether a continued run was interrupted after this result was written."""
        session = self._session.result()
        return bool(session.steps) and isinstance(item, _Point) and item.step in logged_steps(
            session.client, session.run_id, item.name)

    def _terminate(self, status: str) -> None:
        session = self._session.result()
        try:
            self._flush_or_raise()
        finally:
            session.client.set_terminated(session.run_id, status=status)

    def _flush_or_raise(self) -> None:
        self._flush()
        if self._failure is not None:
            raise self._failure
