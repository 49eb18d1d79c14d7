"""``python -m experiments.benchmarks.encryption.two_cores``: what a second core brings.

Seals and folds updates with one process and with two, as clients and servers do it, in turns; and
beside it, as a ceiling, has two processes do half of it each with nothing in common: they have
their halves and the key beforehand and keep what they made. Wall times, medians over turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.fft

from conf.schema import InvalidConfig
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.shared_sum import Sums
from encryption.types import RoundId
from experiments.benchmarks.encryption.measure import _update as drawn
from experiments.series import Place, whole_numbers
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer

CLIENTS, BITS, ROUND = 64, 16, RoundId("two cores", 1)
SUITES = ("shared_key", "shared_key_rlwe")
Work = Callable[[], object]


class Workload:
    """Sealing one update, and folding two, by so many processes."""

    def __init__(self, suite: str, parameters: int, processes: int) -> None:
        layout = ControlLayout(parameters, CLIENTS, choose_parameters(suite, CLIENTS, BITS))
        key = SharedKey.generate(layout.parameters)
        self._values = np.rint(drawn(parameters, 0) * 2 ** (BITS - 1)).astype(np.int64)
        self.sealer = Sealer(key, layout, 0, processes)
        self.sums = Sums(layout, processes)
        other = Sealer(key, layout, 1)
        self._updates = [self.sealer.seal(self._values, ROUND), other.seal(self._values, ROUND)]
        for helper in (*self.sealer.helpers, *self.sums.helpers):
            if not helper.ready(60):
                raise RuntimeError("a helper process does not start")

    def seal(self) -> None:
        self.sealer.seal(self._values, ROUND)

    def fold(self) -> None:
        total = self.sums.start(ROUND.round)
        for update in self._updates:
            total.fold(update)


class Bare:
    """What the suites lean on, alone: transforms that stay in the cache, and main memory."""

    def __init__(self) -> None:
        self._numbers = np.random.default_rng(0).normal(size=(8, 4096)).astype(np.complex128)
        self._large = np.ones(4_000_000)

    def transform(self) -> None:
        for _ in range(100):
            scipy.fft.fft(self._numbers)

    def memory(self) -> None:
        for _ in range(5):
            np.add(self._large, self._large, out=self._large)


def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    made = make()
    pipe.send(True)
    while step := pipe.recv():
        getattr(made, step)()
        pipe.send(True)


@contextmanager
def two_strangers(make: Callable[[], object]) -> Iterator[Callable[[str], None]]:
    """A function that has two processes do a step at once, each with its own ``make()``."""
    pipes, workers = [], []
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        workers.append(multiprocessing.get_context("spawn").Process(
            target=_serve, args=(theirs, make)))
        workers[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def both(step: str) -> None:
        for pipe in pipes:
            pipe.send(step)
        for pipe in pipes:
            pipe.recv()

    yield both
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send("")
        worker.join()


def medians(ways: Mapping[str, Work], turns: int) -> dict[str, float]:
    """Seconds of each way, over turns in which each comes once, after one that does not count."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, work in ways.items():
            began = time.perf_counter()
            work()
            if turn:
                taken[way].append(time.perf_counter() - began)
    return {way: median(seconds) for way, seconds in taken.items()}


@dataclass(frozen=True)
class Row:
    """Seconds; ``strangers``: of two processes that do half of it each and share nothing."""

    parameters: int
    suite: str
    step: str
    one: float
    two: float
    strangers: float


def measure(suite: str, parameters: int, turns: int) -> list[Row]:
    one, two = (Workload(suite, parameters, processes) for processes in (1, 2))
    with two_strangers(partial(Workload, suite, parameters // 2, 1)) as both:
        found = medians({
            f"{step} {way}": work for step in ("seal", "fold") for way, work in (
                ("one", getattr(one, step)), ("two", getattr(two, step)),
                ("strangers", partial(both, step)))}, turns)
    if not two.sealer.helpers:
        raise RuntimeError("a helper process was lost")
    return [Row(parameters, suite, step, *(found[f"{step} {way}"] / count
                                           for way in ("one", "two", "strangers")))
            for step, count in (("seal", 1), ("fold", 2))]


def ceilings(turns: int) -> dict[str, float]:
    """How much sooner two processes do a step each than one does both."""
    alone = Bare()
    with two_strangers(Bare) as both:
        found = medians({
            f"{step} {way}": work for step in ("transform", "memory") for way, work in (
                ("one", lambda step=step: [getattr(alone, step)() for _ in range(2)]),
                ("two", partial(both, step)))}, turns)
    return {step: found[f"{step} one"] / found[f"{step} two"] for step in ("transform", "memory")}


def start_up() -> tuple[float, float]:
    """Wall and processor seconds until a helper is ready."""
    layout = ControlLayout(100_000, CLIENTS, choose_parameters("shared_key", CLIENTS, BITS))
    key = SharedKey.generate(layout.parameters)
    used, began = _children_s(), time.perf_counter()
    sealer = Sealer(key, layout, 0, 2)
    sealer.helpers[0].ready(60)
    wall = time.perf_counter() - began
    sealer.helpers[0].close()
    return wall, _children_s() - used


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: Sequence[Row], alone: Mapping[str, float], start: tuple[float, float]) -> str:
    lines = ["| parameters | suite | step | one process, ms | two, ms | times as fast | "
             "two that share nothing |", "|--:|---|---|--:|--:|--:|--:|"]
    lines += [f"| {row.parameters:,} | {row.suite} | {row.step} | {row.one * 1e3:.1f} "
              f"| {row.two * 1e3:.1f} | {row.one / row.two:.2f} "
              f"| {row.one / row.strangers:.2f} |" for row in rows]
    lines += ["", f"On the same machine, two processes of nothing but FFTs that fit the cache are "
              f"{alone['transform']:.2f} times as fast as one, of `np.add` over main memory "
              f"{alone['memory']:.2f} times. A helper is ready after {start[0]:.2f} s and has then "
              f"used {start[1]:.2f} s of processor time."]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.encryption.two_cores", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=whole_numbers, default=(1_663_370, 10_000_000))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--write", type=Path, metavar="FILE.md",
                        help="between its lines `two cores: begin` and `two cores: end`")
    options = parser.parse_args(argv)
    place: Any = Place(options.write, "two cores") if options.write else None
    try:
        if place:
            place.check()
    except InvalidConfig as error:
        print(error, file=sys.stderr)
        return 2
    start, alone = start_up(), ceilings(options.turns)
    rows = []
    for parameters in options.parameters:
        for suite in SUITES:
            rows += measure(suite, parameters, options.turns)
            print(f"{suite}, {parameters} parameters: done", file=sys.stderr, flush=True)
    text = table(rows, alone, start)
    print(text)
    if place:
        place.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
