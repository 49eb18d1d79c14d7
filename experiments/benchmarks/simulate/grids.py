"""The local grid against Flower's Ray backend, over the very same trivial apps."""

from __future__ import annotations

import statistics
import subprocess
from dataclasses import dataclass

from experiments.benchmarks.simulate.timing import ROOT, run_timed
from experiments.benchmarks.simulate.trivial_apps import CLIENTS, ROUNDS

TARGET_RATIO = 15.0
_APPS = "experiments.benchmarks.simulate.trivial_apps"
_HOW_TO_GET_RAY = (
    "ray is not installed for {python}; for the comparison:\n"
    "    python -m venv ray-env && ray-env/bin/pip install 'flwr[simulation]>=1.41,<1.43'\n"
    "    python -m experiments.benchmarks.simulate grids --ray-python ray-env/bin/python"
)


@dataclass(frozen=True)
class GridTimes:
    """Seconds of whole processes, imports and shutdown included, in the order of running."""

    local_s: tuple[float, ...]
    ray_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median with Ray over median without."""
        return statistics.median(self.ray_s) / statistics.median(self.local_s)


def has_ray(python: str) -> bool:
    found = subprocess.run([python, "-c", "import ray, flwr"], capture_output=True, check=False)
    return found.returncode == 0


def measure(python: str, repeats: int) -> GridTimes:
    """Alternate both ways ``repeats`` times, after one run of each that does not count (files
    get cached). Without Ray, the local way alone. Raises CommandFailed."""
    ways = ("local", "ray") if has_ray(python) else ("local",)
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    for repeat in range(repeats + 1):
        for way in ways:
            timing = run_timed([python, "-m", _APPS, way], cwd=ROOT)
            if repeat:
                seconds[way].append(timing.total_s)
    return GridTimes(tuple(seconds["local"]), tuple(seconds["ray"]))


def report(python: str, repeats: int) -> str:
    times = measure(python, repeats)
    lines = [f"{CLIENTS} clients x {ROUNDS} trivial rounds, whole process, median of {repeats}",
             f"  local grid    {_summary(times.local_s)}"]
    if not times.ray_s:
        return "\n".join([*lines, _HOW_TO_GET_RAY.format(python=python)])
    verdict = "met" if times.ratio >= TARGET_RATIO else "MISSED"
    return "\n".join([*lines, f"  Flower on Ray {_summary(times.ray_s)}",
                      f"  {times.ratio:.1f}x less time; target {TARGET_RATIO:g}x: {verdict}"])


def _summary(seconds: tuple[float, ...]) -> str:
    return (f"{statistics.median(seconds):7.2f} s   "
            f"(from {min(seconds):.2f} to {max(seconds):.2f})")
