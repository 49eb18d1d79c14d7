"""Run a command of this repository as a process and time it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


class CommandFailed(RuntimeError):
    """The timed command did not end with 0; the message holds the end of its stderr."""


@dataclass(frozen=True)
class Timing:
    """``total_s``: start to end of the process; ``mark_s``: until stderr showed the mark."""

    total_s: float
    mark_s: float | None


def run_timed(
    command: Sequence[str],
    *,
    mark: str | None = None,
    cwd: Path = ROOT,
    variables: Mapping[str, str] | None = None,
) -> Timing:
    """Run ``command`` with this repository importable. Raises CommandFailed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
                   **(variables or {})}
    began, mark_s, lines = time.perf_counter(), None, list[str]()
    with (
        tempfile.TemporaryFile() as stdout,
        subprocess.Popen(command, cwd=cwd, env=environment, text=True, errors="replace",
                         stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE) as popen,
    ):
        for line in popen.stderr or ():
            lines.append(line)
            if mark_s is None and mark is not None and mark in line:
                mark_s = time.perf_counter() - began
    if popen.returncode:
        raise CommandFailed(f"{' '.join(command)} ended with {popen.returncode}:\n"
                            + "".join(lines[-25:]))
    return Timing(time.perf_counter() - began, mark_s)
