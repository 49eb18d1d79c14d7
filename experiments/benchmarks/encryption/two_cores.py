"""``python -m experiments.benchmarks.encryption.two_cores``: what a second core would bring.

Seals two halves of an update of 1.66 million parameters: one after the other, in two threads, and
in two processes that have their halves already and keep what they made, which is more than any real
split could hope for. Medians over turns, in one run.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from statistics import median

import numpy as np

from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import RoundId
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer

PARAMETERS, CLIENTS, BITS, TURNS = 1_663_370, 64, 16, 15


class Half:
    """One half of the update, and who seals it."""

    def __init__(self, suite: str, seed: int) -> None:
        layout = ControlLayout(PARAMETERS // 2, CLIENTS, choose_parameters(suite, CLIENTS, BITS))
        self._sealer = Sealer(SharedKey.generate(layout.parameters), layout, 0)
        self._values = np.random.default_rng(seed).integers(-2**15, 2**15, PARAMETERS // 2)

    def seal(self) -> None:
        self._sealer.seal(self._values, RoundId("two cores", 1))


def _worker(pipe: Connection, suite: str, seed: int) -> None:
    half = Half(suite, seed)
    half.seal()
    pipe.send(True)
    while pipe.recv():
        half.seal()
        pipe.send(True)


def measure(suite: str) -> dict[str, float]:
    """Way -> median seconds for both halves."""
    halves = [Half(suite, seed) for seed in (0, 1)]
    pipes, workers = [], []
    for seed in (0, 1):
        ours, theirs = multiprocessing.Pipe()
        workers.append(multiprocessing.get_context("spawn").Process(
            target=_worker, args=(theirs, suite, seed)))
        workers[-1].start()
        pipes.append(ours)
        ours.recv()
    with ThreadPoolExecutor(2) as pool:
        ways: dict[str, Callable[[], object]] = {
            "one core": lambda: [half.seal() for half in halves],
            "two threads": lambda: list(pool.map(Half.seal, halves)),
            "two processes": lambda: ([pipe.send(True) for pipe in pipes],
                                      [pipe.recv() for pipe in pipes]),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(TURNS):
            for way, work in ways.items():
                began = time.perf_counter()
                work()
                taken[way].append(time.perf_counter() - began)
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(False)
        worker.join()
    return {way: median(seconds) for way, seconds in taken.items()}


def main() -> None:
    for suite in ("shared_key_rlwe", "shared_key"):
        found = measure(suite)
        line = ", ".join(f"{way} {seconds * 1e3:.0f} ms ({found['one core'] / seconds:.2f}x)"
                         for way, seconds in found.items())
        print(f"{suite}: {line}", flush=True)


if __name__ == "__main__":
    main()
