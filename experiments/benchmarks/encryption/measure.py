"""Times and memory. Times are medians over turns in which every suite does every step once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.encryption.suites import CLIP, STOCK, Setting, Suite, make_suite


@dataclass(frozen=True)
class Row:
    """One suite in one setting. Seconds are medians; ``fold_vs_add``: time of a plain np.add over
    the words of the sum, as a share of the fold's; ``ratio`` fields: stock over this suite."""

    suite: str
    parameters: int
    clients: int
    bits: int
    bytes_per_parameter_up: float
    bytes_per_parameter_sum: float
    client_cpu_s: float
    client_wall_s: float
    fold_cpu_s_per_client: float
    fold_wall_s_per_client: float
    finish_cpu_s: float
    open_cpu_s: float
    open_wall_s: float
    fold_vs_add: float
    peak_memory_mb: float
    floor_bytes_per_parameter: float
    client_ratio: float
    fold_ratio: float
    open_ratio: float


class _Clock:
    """CPU and wall seconds of every step, by name."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        self.cpu.setdefault(step, []).append(time.process_time() - cpu)
        self.wall.setdefault(step, []).append(time.perf_counter() - wall)
        return made


def measure(setting: Setting, names: tuple[str, ...], repeats: int) -> list[Row]:
    """All suites in turns, ``repeats`` times after one that does not count."""
    suites = {name: make_suite(name, setting) for name in names}
    clocks = {name: _Clock() for name in names}
    updates = [_update(setting.parameters, seed) for seed in range(setting.folded)]
    sizes: dict[str, tuple[int, int]] = {}
    for turn in range(repeats + 1):
        if turn == 1:
            clocks = {name: _Clock() for name in names}
        for name, suite in suites.items():
            sizes[name] = _round(suite, updates, clocks[name], setting)
    stock = clocks[STOCK] if STOCK in clocks else clocks[names[0]]
    return [_row(name, setting, sizes[name], clocks[name], stock) for name in names]


def _round(suite: Suite, updates: list[NDArray[np.float32]], clock: _Clock, setting: Setting
           ) -> tuple[int, int]:
    """One round of this suite; bytes of one upload and of the sum."""
    total, upload = None, 0
    for index, update in enumerate(updates):
        reply = clock.time("client", lambda: suite.client(update, index))  # noqa: B023
        total = clock.time("fold", lambda: suite.fold(total, reply))  # noqa: B023
        upload = sum(map(len, reply))
    summed = clock.time("finish", lambda: suite.finish(total))
    opened = clock.time("open", lambda: suite.open(summed))
    wrong = np.abs(opened[: setting.parameters] - np.sum(updates, axis=0)).max()
    if not wrong < 1.01 * len(updates) * CLIP / 2 ** min(setting.bits, 16):
        raise RuntimeError(f"a suite opened a wrong sum, off by {wrong}")
    return upload, sum(map(len, summed))


def _row(name: str, setting: Setting, sizes: tuple[int, int], clock: _Clock, stock: _Clock) -> Row:
    def ratio(step: str) -> float:
        return median(stock.cpu[step]) / median(clock.cpu[step])

    return Row(
        suite=name, parameters=setting.parameters, clients=setting.clients, bits=setting.bits,
        bytes_per_parameter_up=sizes[0] / setting.parameters,
        bytes_per_parameter_sum=sizes[1] / setting.parameters,
        client_cpu_s=median(clock.cpu["client"]), client_wall_s=median(clock.wall["client"]),
        fold_cpu_s_per_client=median(clock.cpu["fold"]),
        fold_wall_s_per_client=median(clock.wall["fold"]),
        finish_cpu_s=median(clock.cpu["finish"]), open_cpu_s=median(clock.cpu["open"]),
        open_wall_s=median(clock.wall["open"]),
        fold_vs_add=_add_seconds(sizes[1]) / median(clock.cpu["fold"]),
        peak_memory_mb=_peak_memory_mb(name, setting),
        floor_bytes_per_parameter=(setting.bits + np.log2(setting.clients)) / 8,
        client_ratio=ratio("client"), fold_ratio=ratio("fold"), open_ratio=ratio("open"))


def _update(parameters: int, seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(0, CLIP / 4, parameters)
    return np.clip(drawn, -CLIP, 0.99 * CLIP).astype(np.float32)


def _add_seconds(size: int) -> float:
    """A plain np.add over as many bytes as the sum has, in words."""
    ours, theirs = np.zeros(size // 8, np.uint64), np.ones(size // 8, np.uint64)
    taken = []
    for _ in range(7):
        began = time.process_time()
        np.add(ours, theirs, out=ours)
        taken.append(time.process_time() - began)
    return median(taken)


def _peak_memory_mb(name: str, setting: Setting) -> float:
    """Growth of a fresh process over one round, in 10^6 bytes."""
    program = ("from experiments.benchmarks.encryption.measure import grow; "
               f"grow({name!r}, {setting!r})")
    done = subprocess.run(
        [sys.executable, "-c", "from experiments.benchmarks.encryption.suites import Setting; "
         + program], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def grow(name: str, setting: Setting) -> None:
    """Print how far one round raises this process's peak memory, in 10^6 bytes (Linux)."""
    updates = [_update(setting.parameters, seed) for seed in range(setting.folded)]
    make_suite(name, Setting(1000, setting.clients, setting.bits)).client(updates[0][:1000], 0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status_kb("VmRSS")
    _round(make_suite(name, setting), updates, _Clock(), setting)
    print((_status_kb("VmHWM") - before) * 1024 / 1e6)


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
