"""An update that several processes seal is the one that a single process would seal."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import keyholder.sealing_helper
from encryption.processes import HelperLost
from encryption.types import RoundId
from encryption.wire import HEADER_BYTES
from keyholder.sealer import Sealer
from tests.keyholder.conftest import FIRST, Federation
from tests.keyholder.test_processes import _in_a_fork, _occurrences

ENCRYPTED = ("shared_key", "shared_key_rlwe")
VALUES = 90_001
SEED_BYTES = {"shared_key": 64, "shared_key_rlwe": 32}


@contextmanager
def _shared(made: Federation, partner: int = 0, processes: int = 2) -> Iterator[Sealer]:
    sealer = Sealer(made.key, made.layout, partner, processes)
    assert len(sealer.helpers) == processes - 1
    assert all(helper.ready(60) for helper in sealer.helpers)
    yield sealer
    for helper in sealer.helpers:
        helper.close()


def _opens(made: Federation, name: str, *updates: tuple[bytes, ...]) -> np.ndarray:
    elsewhere = Federation(made.parameters, made.key, made.layout, made.folder / name)
    return elsewhere.open(made.add(updates), range(len(updates))).values


def _seeds(made: Federation, blocks: tuple[bytes, ...]) -> list[bytes]:
    size = SEED_BYTES[made.parameters.suite]
    return [block[HEADER_BYTES : HEADER_BYTES + size] for block in blocks]


def _gone(pid: int) -> bool:
    """Whether the process ends within some seconds; a zombie counts as ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("suite", "processes"), [("shared_key", 2), ("shared_key_rlwe", 3)])
def test_the_same_sum_opens_however_many_seal(federate: Callable, suite: str, processes: int
                                              ) -> None:
    made = federate(suite, values=VALUES)
    values = [made.values(seed) for seed in range(3)]
    with _shared(made, 0, processes) as sealer:
        shared = sealer.seal(values[0], FIRST)
        again = sealer.seal(values[2], RoundId("5eed", 2))
    alone = made.seal(values[1], 1)
    # All but the client, the digest and the random body: version, place, number of blocks.
    assert ([(block[:28], block[32:40], len(block)) for block in shared]
            == [(block[:28], block[32:40], len(block)) for block in alone])
    assert np.array_equal(_opens(made, "first", shared, alone), values[0] + values[1])
    assert again[0][24:28] == (2).to_bytes(4, "little")  # the round
    size = {"shared_key": len(shared), "shared_key_rlwe": processes}[suite]
    assert len(set(_seeds(made, shared))) == len(set(_seeds(made, again))) == size
    assert not set(_seeds(made, shared)) & set(_seeds(made, again))


@pytest.mark.parametrize("suite", ENCRYPTED)
def test_a_helper_that_dies_costs_neither_a_round_nor_a_seed(
        federate: Callable, caplog: pytest.LogCaptureFixture, suite: str) -> None:
    made = federate(suite, values=VALUES)
    values = made.values(0)
    with _shared(made) as sealer:
        before = sealer.seal(values, FIRST)
        pid = sealer.helpers[0].pid
        os.kill(pid, signal.SIGKILL)
        with caplog.at_level(logging.WARNING):
            after = sealer.seal(values, FIRST)
        assert "sealed by this one" in caplog.text and not sealer.helpers and _gone(pid)
        assert np.array_equal(_opens(made, "after", after), values)
        assert not set(_seeds(made, before)) & set(_seeds(made, after))
        assert np.array_equal(_opens(made, "alone", sealer.seal(values, FIRST)), values)


@pytest.mark.parametrize("which", [0, 1])
def test_one_helper_of_several_may_die(federate: Callable, which: int) -> None:
    """Its blocks are not forgotten in the updates after the one in which it was lost."""
    made = federate("shared_key_rlwe", values=VALUES)
    values = made.values(0)
    with _shared(made, 0, 3) as sealer:
        os.kill(sealer.helpers[which].pid, signal.SIGKILL)
        for name in ("now", "next"):
            assert np.array_equal(_opens(made, name, sealer.seal(values, FIRST)), values)


def test_a_helper_that_hangs_is_ended(
        federate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federate("shared_key_rlwe", values=VALUES)
    monkeypatch.setattr(keyholder.sealing_helper, "_PATIENCE_S", 0.2)
    with _shared(made) as sealer:
        pid = sealer.helpers[0].pid
        os.kill(pid, signal.SIGSTOP)
        blocks = sealer.seal(made.values(0), FIRST)
        assert not sealer.helpers and _gone(pid)
    assert np.array_equal(_opens(made, "here", blocks), made.values(0))


@pytest.mark.parametrize("suite", ENCRYPTED)
def test_a_helper_may_be_lost_after_its_part_of_the_tags(
        federate: Callable, monkeypatch: pytest.MonkeyPatch, suite: str) -> None:
    def lose() -> None:
        raise HelperLost("a helper process ended")

    made = federate(suite, values=VALUES)
    with _shared(made) as sealer:
        monkeypatch.setattr(sealer.helpers[0], "blocks", lose)
        blocks = sealer.seal(made.values(0), FIRST)
        assert not sealer.helpers
    assert np.array_equal(_opens(made, "here", blocks), made.values(0))


def test_an_update_that_fails_half_way_leaves_no_answer_for_the_next(
        federate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federate("shared_key_rlwe", values=VALUES)
    with _shared(made) as sealer:
        with monkeypatch.context() as patched:
            patched.setattr(sealer, "_closing_digits", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                sealer.seal(made.values(1), FIRST)
        assert not sealer.helpers
        blocks = sealer.seal(made.values(0), FIRST)
    assert np.array_equal(_opens(made, "here", blocks), made.values(0))


def test_what_is_not_started_yet_is_not_waited_for(federate: Callable) -> None:
    made = federate("shared_key_rlwe", values=VALUES)
    sealer = Sealer(made.key, made.layout, 0, 2)
    os.kill(sealer.helpers[0].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert np.array_equal(_opens(made, "here", sealer.seal(made.values(0), FIRST)), made.values(0))
    assert time.monotonic() - began < 5 and len(sealer.helpers) == 1


def test_a_helper_that_cannot_start_costs_nothing(
        federate: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
        ) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    made = federate("shared_key_rlwe", values=VALUES)
    sealer = Sealer(made.key, made.layout, 0, 2)
    assert not sealer.helpers and "no more processes" in caplog.text
    assert np.array_equal(_opens(made, "here", sealer.seal(made.values(0), FIRST)), made.values(0))


def test_small_updates_and_plaintext_have_no_helpers(federate: Callable) -> None:
    for suite, values, processes in (("shared_key", 1000, 4), ("plaintext", VALUES, 2),
                                     ("shared_key", VALUES, None)):
        made = federate(suite, values=values)
        assert not Sealer(made.key, made.layout, 0, processes).helpers


@pytest.mark.filterwarnings("ignore:This process")
def test_threads_and_forks_share_a_sealer_with_a_helper(federate: Callable) -> None:
    made = federate("shared_key", values=VALUES)
    values = [made.values(seed) for seed in range(5)]
    with _shared(made) as sealer:
        with ThreadPoolExecutor(3) as pool:
            updates = list(pool.map(sealer.seal, values, [FIRST] * 5))
        theirs = _in_a_fork(lambda: b"".join(sealer.seal(values[0], FIRST)))
        size = len(updates[0][0])
        forked = tuple(theirs[at : at + size] for at in range(0, len(theirs), size))
        ours = sealer.seal(values[0], FIRST)
        assert len(sealer.helpers) == 1
    for name, value, update in zip("abcdefg", [*values, values[0], values[0]],
                                   [*updates, forked, ours], strict=True):
        assert np.array_equal(_opens(made, name, update), value)
    seeds = [seed for update in (*updates, forked, ours) for seed in _seeds(made, update)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("suite", ENCRYPTED)
def test_what_is_shared_is_wiped(federate: Callable, suite: str) -> None:
    """The key as soon as the helper has it, the update as soon as it is sealed, all at the end."""
    made = federate(suite, values=VALUES)
    needle = bytes(made.key.cipher_key()[:256])
    with _shared(made) as sealer:
        helper = sealer.helpers[0]
        room = helper._helper.shared
        assert not room.any()
        held = _occurrences(helper.pid, needle)  # SEAL makes copies of its own
        assert held == 1 if suite == "shared_key_rlwe" else held >= 1
        sealer.seal(np.full(VALUES, 3), FIRST)
        assert not helper._digits.any() and room.any()  # the blocks, which are not secret
        helper.close()
        assert not room.any() and _gone(helper.pid)


def test_helpers_end_with_their_sealer(federate: Callable) -> None:
    made = federate("shared_key_rlwe", values=VALUES)
    sealer = Sealer(made.key, made.layout, 0, 3)
    pids = [helper.pid for helper in sealer.helpers]
    del sealer
    assert all(_gone(pid) for pid in pids)


PARENT = """
import os, sys, time
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
layout = ControlLayout(90001, 6, choose_parameters("shared_key", 6, 16))
sealer = Sealer(SharedKey.load(sys.argv[1]), layout, 0, 2)
if sys.argv[2] == "ready":
    assert sealer.helpers[0].ready(60)
    if not os.fork():  # a fork holds the socket's other end, and lives on
        time.sleep(30)
        os._exit(0)
print(sealer.helpers[0].pid, flush=True)
if sys.argv[3] == "killed":
    time.sleep(60)
"""


@pytest.mark.parametrize("when", ("ready", "starting"))
@pytest.mark.parametrize("how", ("killed", "ended"))
def test_no_helper_outlives_its_client(tmp_path: Path, federate: Callable, when: str, how: str
                                       ) -> None:
    made = federate("shared_key", values=VALUES)
    made.key.save(tmp_path / "key")
    client = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path / "key", when, how],
                              stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        pid = int(client.stdout.readline())
        if how == "killed":
            assert when == "starting" or "keyholder.sealing_helper" in Path(
                f"/proc/{pid}/cmdline").read_text()
            client.kill()
        client.wait(30)
        assert _gone(pid)
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
        with suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)


def test_the_key_is_on_no_command_line_and_in_no_environment(federate: Callable) -> None:
    made = federate("shared_key_rlwe", values=VALUES)
    with _shared(made) as sealer:
        shown = b"".join(Path(f"/proc/{sealer.helpers[0].pid}/{name}").read_bytes()
                         for name in ("cmdline", "environ"))
    for secret in (bytes(made.key._tag_key), bytes(made.key.cipher_key()[:64])):
        assert secret not in shown and secret.hex().encode() not in shown
