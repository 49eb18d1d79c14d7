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
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from conf.schema import Config
from server.mlflow_run import open_run
from server.mlflow_store import (
    Session,
    check_uri,
    log_bytes,
    log_model,
    logged_steps,
    quiet_mlflow,
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
    _has_model: bool = False

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
            open_run, config, dataset, dict(tags or {}), shown, continues is not None)
        tracker = cls(config.tracking.uri, worker, session)
        if continues:
            tracker._step = len(continues)
            worker.submit(tracker._catch_up, list(continues))
        return tracker

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; waits until the store is open."""
        return self._session.result().run_id

    def ready(self) -> None:
        """Wait until the run is in MLflow: what only MLflow can find out is found out before the
        rounds spend anything."""
        self._session.result()

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

    def record_model(self, model: nn.Module, input_example: np.ndarray,
                     registered_name: str = "") -> None:
        """Store and register the run's final model; waits. A continued run that has one keeps it.
        Of ``input_example`` only shape and dtype are stored, never values. Raises TrackingFailed.
        """
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
        self._queue(self._step, metrics)
        self._worker.submit(self._finish, dict(figures), dict(texts or {})).result()
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
            if self._has_model:
                self._pending.append(_Tag(UNFINISHED_TAG, "the final model is recorded, but not "
                                          "all that its test gave"))
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

    def _record(self, write: Callable[..., None], *what: object) -> None:
        session = self._session.result()
        try:
            self._worker.submit(write, session, *what).result()
        except Exception as error:
            raise TrackingFailed(
                f"MLflow did not take the model ({type(error).__name__}); check the disk or the "
                "server behind tracking.uri. Where interrupted runs are kept, the same command "
                "then goes on") from error
        self._has_model = True

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

    def _finish(self, figures: dict[str, Figure], texts: dict[str, str]) -> None:
        self._flush_or_raise()
        session = self._session.result()
        for name, figure in figures.items():
            session.client.log_figure(session.run_id, figure, f"figures/{name}.png",
                                      save_kwargs={"dpi": 160})
        for name, text in texts.items():
            session.client.log_text(session.run_id, text, name)

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
