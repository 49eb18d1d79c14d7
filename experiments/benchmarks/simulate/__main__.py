"""``python -m experiments.benchmarks.simulate [grids|default] [overrides]``: see README.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.benchmarks.simulate import default_run, grids
from experiments.benchmarks.simulate.timing import CommandFailed


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.simulate",
        description="Times the local grid against Flower on Ray, and the default simulation.")
    parser.add_argument("what", nargs="?", choices=("all", "grids", "default"), default="all")
    parser.add_argument("overrides", nargs="*", help="for the simulation, such as task=...")
    parser.add_argument("--repeats", type=int, default=5, help="of the grids (default 5)")
    parser.add_argument("--runs", type=int, default=1, help="of the simulation (default 1)")
    parser.add_argument("--ray-python", default=sys.executable,
                        help="a Python that has flwr[simulation]; runs both grids")
    arguments = parser.parse_args(argv)
    ray_python = str(Path(arguments.ray_python).absolute())  # its links stay: they name the venv
    if min(arguments.repeats, arguments.runs) < 1:
        parser.error("--repeats and --runs must be at least 1")
    try:
        if arguments.what in ("all", "grids"):
            print(grids.report(ray_python, arguments.repeats), flush=True)
        if arguments.what in ("all", "default"):
            print(default_run.report(arguments.runs, tuple(arguments.overrides)), flush=True)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
