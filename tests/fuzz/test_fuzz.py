"""Twenty-four thousand hostile inputs at every test; ``python -m tests.fuzz`` runs many more."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import from_json
from conf.schema import InvalidConfig
from encryption.accumulator import make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import Refused
from tests.fuzz import __main__ as fuzz
from tests.fuzz.targets import SUITES, Target

ROOT = Path(__file__).resolve().parents[2]
CASES = 24_000


def test_no_parser_crashes_hangs_or_fails_by_another_name() -> None:
    """In a process of its own: a fault in native code is a failed test, not a lost run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--cases", str(CASES), "--seed", "20"], cwd=ROOT,
        capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = re.findall(r"^(.+): (\d+) cases, (\d+) accepted, (\d+) refused", done.stdout, re.M)
    assert sum(int(cases) for _, cases, _, _ in lines) >= CASES
    assert all(int(accepted) + int(refused) == int(cases)
               for _, cases, accepted, refused in lines)
    assert len(lines) == 3 * len(SUITES) + 7 + 6
    assert all(int(refused) > int(cases) // 2 for _, cases, _, refused in lines)


def _fail(_: Random) -> bool:
    raise IndexError("not ours")


def _grow(_: Random) -> bool:
    raise MemoryError


def _refuse_with_data(_: Random) -> bool:
    raise Refused("x" * 300)


@pytest.mark.parametrize("run", (_fail, _grow, _refuse_with_data))
def test_a_parser_that_fails_is_reported(run: object) -> None:
    report = fuzz._cases("t", Target(run, 1), 1, range(3))
    assert "case 0" in report or "--only 0" in report


def test_a_parser_that_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HANG_S", 0.2)
    before = signal.signal(signal.SIGALRM, fuzz._hang)
    try:
        report = fuzz._cases("t", Target(lambda _: time.sleep(30) or True, 1), 1, range(1))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "Hung" in report


def test_a_parser_that_needs_too_much_memory_is_stopped() -> None:
    code = ("from tests.fuzz.__main__ import _limit_memory, MEMORY_CAP_MB\n"
            "_limit_memory()\n"
            "kept = bytearray(MEMORY_CAP_MB << 19)\n"
            "try:\n    bytearray(MEMORY_CAP_MB << 20)\nexcept MemoryError:\n    print('stopped')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)
    assert done.stdout.strip() == "stopped", done.stderr


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.sampled_from(SUITES))
def test_arbitrary_blocks_are_refused(blocks: list[bytes], suite: str) -> None:
    layout = ControlLayout(100, 6, choose_parameters(suite, 6, 16))
    with pytest.raises(Refused):
        make_accumulator(layout).fold(blocks)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(
        st.text(max_size=8) | st.sampled_from(("task", "privacy", "federation", "partners")),
        children, max_size=4), max_leaves=12)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(("task", "model", "privacy", "encryption", "strategy",
                                        "federation", "tracking", "seed")), TREES, min_size=1))
def test_arbitrary_trees_are_a_configuration_or_refused(tree: dict[str, object]) -> None:
    try:
        from_json(json.dumps(tree))
    except InvalidConfig:
        return
