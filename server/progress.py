"""What a person sees while a federation runs: a bar on a terminal, plain lines elsewhere.

Everything goes to stderr; stdout stays free for the result.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_LINES = 10
"""Plain lines over a whole run, besides the first and the last."""


@dataclass
class Progress:
    """Context manager: :meth:`stage` around long work, :meth:`round` after every round.

    Guarantee: leaving the block, also by Ctrl-C, gives the terminal back with its cursor. The
    first line that begins ``round 1/`` appears when round 1 starts, if :meth:`begin_rounds` is
    called then, else when it ends.
    """

    rounds: int
    metric: str
    stream: TextIO | None = None
    _bar: RichProgress | None = field(default=None, init=False)
    _task: TaskID | None = field(default=None, init=False)
    _in_rounds: bool = field(default=False, init=False)
    _round_began: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        out = self.stream or sys.stderr
        if out.isatty():
            self._bar = _bar(Console(file=out))
            self._bar.start()
        self._round_began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._clear_task()
            self._bar.stop()
            self._bar = None

    def stage(self, text: str) -> None:
        """Announce work that takes seconds, before or after the rounds."""
        self._in_rounds = False
        if self._bar is None:
            self._print(f"{text} ...")
        else:
            self._clear_task()
            self._task = self._bar.add_task(text, total=None, facts="")

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._bar is None:
            self._print(text)
        else:
            self._bar.console.print(text, style="dim", highlight=False, markup=False, emoji=False)

    def begin_rounds(self, done: int = 0) -> None:
        """Say that the round after ``done`` starts now."""
        self._in_rounds = True
        self._round_began = time.perf_counter()
        if self._bar is None:
            self._print(f"round {done + 1}/{self.rounds} ...")
        else:
            self._clear_task()
            self._task = self._bar.add_task("round", total=self.rounds, completed=done, facts="")

    def round(self, number: int, metrics: Mapping[str, float]) -> None:
        """Show a finished round. Takes the same mapping that is logged to MLflow."""
        now = time.perf_counter()
        seconds = metrics.get("time/round_s", now - self._round_began)
        self._round_began = now
        facts = self._facts(metrics)
        if self._bar is not None:
            if not self._in_rounds:
                self.begin_rounds()
            if self._task is not None:
                self._bar.update(self._task, completed=number, facts=facts)
        elif self._due(number):
            self._print(f"round {number}/{self.rounds}  {facts}  {seconds:.1f} s")
        self._in_rounds = True

    def _due(self, number: int) -> bool:
        return number in (1, self.rounds) or number % max(1, round(self.rounds / _LINES)) == 0

    def _facts(self, metrics: Mapping[str, float]) -> str:
        parts = []
        if self.metric in metrics:
            error = metrics.get(f"{self.metric}_error", 0.0)
            spread = f"±{short(error)}" if error > 0 else ""
            parts.append(f"{self.metric}={short(metrics[self.metric])}{spread}")
        if "privacy/epsilon" in metrics:
            epsilon = metrics["privacy/epsilon"]
            shown = f"{epsilon:.2f}" if math.isfinite(epsilon) else "none"
            parts.append(f"epsilon={shown}")
        refused = int(metrics.get("cohort/refused", 0))
        if refused:
            parts.append(f"refused={refused}")
        return "  ".join(parts)

    def _print(self, line: str) -> None:
        print(line, file=self.stream or sys.stderr, flush=True)

    def _clear_task(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def short(value: float) -> str:
    """``.742`` for .7421, ``-`` for a value that was not computed."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


class _RoundsOnly(ProgressColumn):
    """A column that stays empty during stages, whose length nobody knows."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        return "" if task.total is None else self._column.render(task)


def _bar(console: Console) -> RichProgress:
    return RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        _RoundsOnly(BarColumn(bar_width=24)),
        _RoundsOnly(MofNCompleteColumn()),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeElapsedColumn(),
        _RoundsOnly(TimeRemainingColumn(compact=True)),
        console=console,
        transient=True,
        refresh_per_second=8,
    )
