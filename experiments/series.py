"""Several runs that answer one question together: seeds averaged, arguments shared."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from conf.schema import Config, InvalidConfig
from learning.results import Comparison, Estimate

FARTHEST = 4
"""Rungs of :func:`climb` up and down."""


def whole_numbers(text: str) -> tuple[int, ...]:
    """ "10,25" -> (10, 25). Raises ArgumentTypeError."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 10,25,50") from None
    if any(number < 0 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} holds a negative number")
    return numbers


def numbers(text: str) -> tuple[float, ...]:
    """ "0.1,3,inf" -> (0.1, 3.0, inf), all above 0. Raises ArgumentTypeError."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 0.1,0.3,1") from None
    if not all(number > 0 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r} holds a number that is not above 0")
    return found


def rung(start: float, factor: float, steps: int) -> float:
    """``start * factor**steps``, two digits of it."""
    return float(f"{start * factor**steps:.2g}")


def climb(merit: Callable[[int], float], begin: int = 0, ways: Sequence[int] = (1, -1)) -> int:
    """The best of the rungs -FARTHEST to FARTHEST of a ladder as far as a walk from ``begin``
    finds it: to where a step either way is worse. NaN counts as the worst; each is tried once."""
    @cache
    def height(steps: int) -> float:
        found = merit(steps)
        return -math.inf if math.isnan(found) else found

    best = begin
    for way in ways:
        while abs(best + way) <= FARTHEST and height(best + way) > height(best):
            best += way
    return best


def averaged(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of the values and of both interval bounds over seeds. A seed changes the split and
    the noise, so the bounds keep the sampling error of the customers; they do not shrink with
    the number of seeds, because the seeds share most of their test customers."""
    count = len(estimates)
    return Estimate(
        sum(item.value for item in estimates) / count,
        sum(item.low for item in estimates) / count,
        sum(item.high for item in estimates) / count,
    )


def averaged_row(rows: Sequence[Comparison]) -> Comparison:
    """One partner's row over several seeds."""
    merged = {
        field.name: averaged([getattr(row, field.name) for row in rows])
        for field in fields(Comparison) if field.type in ("Estimate", Estimate)
    }
    return replace(rows[0], customers=round(sum(row.customers for row in rows) / len(rows)),
                   **merged)


def smallest_partner(rows: Iterable[Comparison]) -> str:
    """The partner with the fewest test customers, but any."""
    return min((row for row in rows if row.partner not in ("all", "held out") and row.customers),
               key=lambda row: row.customers).partner


def with_run(config: Config, name: str, seed: int) -> Config:
    """The configuration of one run of a series, named after its place in it."""
    tracking = replace(config.tracking, run_name=f"{name}-seed{seed}")
    return replace(config, tracking=tracking, seed=seed)


def interval_text(estimate: Estimate, signed: bool = False) -> str:
    """ "0.671 [0.654, 0.688]"; without bounds where they were not computed."""
    sign = "+" if signed else ""
    if math.isnan(estimate.low):
        return f"{estimate.value:{sign}.3f}"
    return f"{estimate.value:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def markdown_head(*names: str) -> str:
    return "| " + " | ".join(names) + " |\n|" + "---|" * len(names)


def markdown_row(name: str, values: Iterable[float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |"


Table = Callable[[tuple[int, ...]], Iterable[str]]
"""Seeds -> lines."""


def print_tables(program: str, about: str | None, kind: str,
                 tables: Mapping[str, tuple[str | None, Table]], argv: Sequence[str]) -> int:
    """The command line of a study: the named tables, or all, each under its title. ``kind``: what
    a name stands for. One thread, so that studies may run side by side."""
    import torch

    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("names", nargs="*", choices=[*tables, []], metavar=kind,
                        help=f"{', '.join(tables)} (default: all)")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in options.names or tables:
        title, lines = tables[name]
        print(f"\n{title}\n")
        for line in lines(options.seeds):
            print(line, flush=True)
    return 0


def write_task_tables(name: str, about: str, tasks: Sequence[str],
                      table: Callable[[str, Sequence[int]], Iterable[str]],
                      argv: Sequence[str]) -> int:
    """The command line of ``python -m experiments.NAME``, which prints a table per task and puts it
    between the lines "NAME TASK" of a document. ``table``: (task, seeds) -> lines."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=about)
    parser.add_argument("tasks", nargs="*", choices=[*tasks, []], metavar="TASK",
                        help=f"{', '.join(tasks)} (default: all)")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help=f"put each table between the task's {name} markers of FILE")
    options = parser.parse_args(argv)
    places = {task: Place(options.write, f"{name} {task}")
              for task in options.tasks or tasks if options.write}
    try:
        for place in places.values():
            place.check()
    except InvalidConfig as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    for task in options.tasks or tasks:
        text = "\n".join(table(task, options.seeds))
        print(text, flush=True)
        if task in places:
            places[task].write(text)
    return 0


@dataclass(frozen=True)
class Place:
    """The lines of a document between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""

    path: Path
    name: str

    @classmethod
    def of_task(cls, path: Path, name: str, task: str) -> Place:
        """Each task has a table of its own; that of the default task is plainly NAME."""
        return cls(path, name if task == "retail_repeat" else f"{name} {task}")

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        return f"<!-- {self.name}: end -->"

    def check(self) -> None:
        """Raises InvalidConfig before hours of work would end without a place to write to."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        if self.begin not in text or self.end not in text:
            raise InvalidConfig("--write", f"{self.path} has no lines {self.begin} and {self.end}")

    def write(self, content: str) -> None:
        before, rest = self.path.read_text(encoding="utf-8").split(self.begin, 1)
        after = rest.split(self.end, 1)[1]
        self.path.write_text(f"{before}{self.begin}\n{content}\n{self.end}{after}",
                             encoding="utf-8")
