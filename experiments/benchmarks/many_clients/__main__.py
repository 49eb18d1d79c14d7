"""``python -m experiments.benchmarks.many_clients``: see README.md."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from conf.schema import InvalidConfig
from experiments.series import Place

ROOT = Path(__file__).resolve().parents[3]
_ROUND = re.compile(r"^round \d+/\d+  .* ([\d.]+) s$", re.MULTILINE)
_MARK = "VEILSUM_BENCHMARK"
_SAMPLE_S = 0.5


@dataclass(frozen=True)
class Cost:
    """total_s: of the whole command; rounds_s: each round; peak_mb: of all its processes."""

    total_s: float
    rounds_s: tuple[float, ...]
    peak_mb: float
    processes: int


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.many_clients",
        description="Runs one federation of many clients on the local grid and on Ray.")
    parser.add_argument("--clients", type=int, default=200, help="default 200")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--python", default=sys.executable, help="one that has the extra ray")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args(argv)
    place = Place(Path(__file__).parent / "README.md", "many clients")
    engines = ["local", "ray"] if _has_ray(options.python) else ["local"]
    try:
        place.check()
        costs = {name: _measure(options.python, name, options.clients, options.rounds)
                 for name in engines}
    except (InvalidConfig, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    text = table(costs, options.clients, options.rounds)
    print(text)
    if options.write:
        place.write(text)
    return 0


def table(costs: dict[str, Cost], clients: int, rounds: int) -> str:
    lines = [f"{clients} clients, {rounds} rounds, 2 clients at a time, "
             f"{os.cpu_count()} processors; everything but the engine is the same:", "",
             "| federation | whole command, s | first round, s | later rounds, median s "
             "| peak memory of all processes, MB | processes |", "|---|--:|--:|--:|--:|--:|"]
    lines += [f"| `{name}` | {cost.total_s:.0f} | {cost.rounds_s[0]:.1f} | "
              f"{statistics.median(cost.rounds_s[1:] or cost.rounds_s):.1f} | "
              f"{cost.peak_mb:.0f} | {cost.processes} |" for name, cost in costs.items()]
    return "\n".join(lines)


def _has_ray(python: str) -> bool:
    found = subprocess.run([python, "-c", "import ray"], capture_output=True, check=False)
    return found.returncode == 0


def _measure(python: str, engine: str, clients: int, rounds: int) -> Cost:
    """Raises CalledProcessError."""
    mark = secrets.token_hex(8)
    command = [python, "-m", "experiments.cli", "simulate", "experiment=quick",
               f"federation={engine}", f"federation.split_into={clients}",
               f"strategy.rounds={rounds}"]
    peak, most = 0.0, 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), _MARK: mark}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as shown:
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=shown) as process:
            while process.poll() is None:
                sizes = _sizes_mb(f"{_MARK}={mark}".encode())
                peak, most = max(peak, sum(sizes)), max(most, len(sizes))
                time.sleep(_SAMPLE_S)
        total = time.perf_counter() - began
        shown.seek(0)
        text = shown.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text[-2000:])
    return Cost(total, tuple(map(float, _ROUND.findall(text))), peak, most)


def _sizes_mb(mark: bytes) -> list[float]:
    """Memory of each process that inherited the mark: Ray's are no children of the command.
    Shared pages are divided among those that share them (Linux's PSS)."""
    sizes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                rollup = (folder / "smaps_rollup").read_text()
                sizes.append(int(rollup.split("\nPss:")[1].split()[0]) / 1024)
        except (OSError, IndexError):
            continue  # it ended, or it is somebody else's
    return sizes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
