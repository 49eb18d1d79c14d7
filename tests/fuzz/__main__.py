"""``python -m tests.fuzz --cases 1000000``: hostile bytes for every parser, reproducibly.

Prints one line a target. A case that crashes, hangs for more than ``HANG_S`` seconds, needs more
than ``MEMORY_CAP_MB`` above what the process held after twenty cases of each target, or fails by an
exception that is not ours, ends the run with the command that repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.targets import OURS, Target, make

HANG_S = 10
MEMORY_CAP_MB = 256


class Hung(BaseException):
    """No parser catches this."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", default="", help="only targets that start so")
    parser.add_argument("--only", type=int, help="repeat one case of the target")
    chosen = parser.parse_args(arguments)
    faulthandler.enable()
    signal.signal(signal.SIGALRM, _hang)
    memory = Path("/dev/shm")  # openings sync to disk; here that costs nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        targets = {name: target for name, target in make(Path(folder)).items()
                   if name.startswith(chosen.target)}
        total = sum(target.share for target in targets.values())
        for name, target in targets.items():  # fills caches and arenas
            _cases(name, target, chosen.seed, range(20), quiet=True)
        _limit_memory()
        for name, target in targets.items():
            count = -(-chosen.cases * target.share // total)
            cases = range(count) if chosen.only is None else range(chosen.only, chosen.only + 1)
            if failure := _cases(name, target, chosen.seed, cases):
                print(failure, file=sys.stderr)
                return 1
    return 0


def _cases(name: str, target: Target, seed: int, cases: range, quiet: bool = False) -> str:
    """Run them and print what came of them; the text of the first failure, or nothing."""
    accepted = refused = 0
    began, before = time.perf_counter(), _peak_mb()
    for case in cases:
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            accepted += target.run(Random(f"{seed} {name} {case}"))
        except OURS as error:
            refused += 1
            if isinstance(error, OURS[0]) and len(str(error)) > 200:
                return f"{name}, seed {seed}, case {case}: a refusal that is too long"
        except BaseException:
            return (f"{name} failed: python -m tests.fuzz --seed {seed} --target '{name}' "
                    f"--only {case}\n{traceback.format_exc()}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if not quiet:
        print(f"{name}: {len(cases)} cases, {accepted} accepted, {refused} refused, "
              f"{time.perf_counter() - began:.1f} s, {_peak_mb() - before:.0f} MB", flush=True)
    return ""


def _hang(*_: object) -> None:
    raise Hung


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _limit_memory() -> None:
    """From here on an allocation beyond the cap raises MemoryError, which is not ours."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + (MEMORY_CAP_MB << 20),) * 2)


if __name__ == "__main__":
    sys.exit(main())
