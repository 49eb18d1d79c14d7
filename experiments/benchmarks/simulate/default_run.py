"""How long ``veilsum simulate`` takes, and how long until its first round starts."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.simulate.timing import Timing, run_timed

TARGET_TOTAL_S = 120.0
TARGET_FIRST_ROUND_S = 15.0
FIRST_ROUND = "round 1/"
"""What stderr shows when the first round starts (server/progress.py)."""

_COMMAND = (sys.executable, "-m", "experiments.cli", "simulate")


def measure(repeats: int, overrides: tuple[str, ...] = ()) -> tuple[Timing, ...]:
    """Run the command ``repeats`` times in one temporary folder, after a run of one round that
    does not count: the data set is fetched and the MLflow store made then.

    Raises CommandFailed, and RuntimeError when no line tells that the first round started.
    """
    with tempfile.TemporaryDirectory(prefix="veilsum-benchmark-") as folder:
        run_timed([*_COMMAND, *overrides, "strategy.rounds=1"], cwd=Path(folder))
        timings = tuple(run_timed([*_COMMAND, *overrides], mark=FIRST_ROUND, cwd=Path(folder))
                        for _ in range(repeats))
    if any(timing.mark_s is None for timing in timings):
        raise RuntimeError(f"stderr never showed {FIRST_ROUND!r}")
    return timings


def report(repeats: int, overrides: tuple[str, ...] = ()) -> str:
    timings = measure(repeats, overrides)
    total = statistics.median(timing.total_s for timing in timings)
    first = statistics.median(timing.mark_s or 0.0 for timing in timings)
    return "\n".join([
        " ".join(["veilsum simulate", *overrides]) + f", warm caches, median of {repeats}",
        f"  total             {total:7.1f} s   target {TARGET_TOTAL_S:g} s: "
        + ("met" if total <= TARGET_TOTAL_S else "MISSED"),
        f"  first round after {first:7.1f} s   target {TARGET_FIRST_ROUND_S:g} s: "
        + ("met" if first <= TARGET_FIRST_ROUND_S else "MISSED"),
    ])
