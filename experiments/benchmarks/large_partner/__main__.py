"""``python -m experiments.benchmarks.large_partner``: see README.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from experiments.benchmarks.large_partner import tables

_FEW = ",".join(f"CATEGORY {number}" for number in range(24))
_SNAPSHOTS = ("task.test_snapshot=2024-12-17", "task.validation_snapshot=2024-12-03",
              "task.train_snapshots=[2024-07-30,2024-08-13,2024-08-27,2024-09-10,2024-09-24,"
              "2024-10-08,2024-10-22,2024-11-05,2024-11-19]")
TASKS: Mapping[str, tuple[str, ...]] = {
    "utility_load": (),
    "retail_repeat": (f"task.categories=[{_FEW}]", *_SNAPSHOTS),
    "retail_cross": (f"+task.calendars.{tables.PARTNER}=2024-01-01/2024-12-30",),
    "retail_demand": (f"task.categories=[{_FEW}]", *_SNAPSHOTS[:1],
                      "task.validation_snapshot=2024-11-05", "task.train_snapshots=[2024-09-10,"
                      "2024-09-17,2024-09-24,2024-10-01]"),
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.large_partner",
        description="Peak memory and seconds of one partner's process, by number of customers.")
    parser.add_argument("--customers", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--days", type=int, default=tables.DAYS, help="of each home")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE",
                        help="such as model=tcn")
    options = parser.parse_intermixed_args(argv)
    print("| task | customers | training examples | their features, GB | peak GB, read | peak GB "
          "| read s | round s |\n|---|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="veilsum-large-") as folder:
        for count in options.customers:
            for task in options.tasks:
                path = Path(folder) / f"{task == 'utility_load'}-{count}.parquet"
                if not path.exists():
                    tables.write(tables.homes(count, options.days) if task == "utility_load"
                                 else tables.households(count), path)
                print(row(task, count, measure(path, task, options.rounds, options.overrides)),
                      flush=True)
    return 0


def measure(path: Path, task: str, rounds: int, overrides: list[str]) -> dict[str, object]:
    """What ``round`` says, of a fresh process."""
    words = [sys.executable, "-m", "experiments.benchmarks.large_partner.round", str(path),
             str(rounds), f"task={task}", *TASKS[task], *overrides]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def row(task: str, count: int, found: dict[str, object]) -> str:
    seconds = " ".join(f"{value:.0f}" for value in found["round_s"])  # type: ignore[attr-defined]
    return (f"| {task} | {count:,} | {found['examples']:,} | {found['gigabytes']:.1f} | "
            f"{int(str(found['read_peak_kb'])) / 2**20:.2f} | "
            f"{int(str(found['peak_kb'])) / 2**20:.2f} | {found['read_s']:.0f} | {seconds} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
