"""The guard's memory holds over restarts, crashes and processes."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encryption.accumulator import digest
from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId
from keyholder.guard import OpeningGuard
from keyholder.opening import SumOpener
from keyholder.refusals import AnotherSumClaimed, KeyRetired, OpeningRefused

ROUND = RoundId("../../hostile\0run", 1)
CLAIM = OpeningClaim(ROUND, (0, 2), bytes(32))
OTHERS = (OpeningClaim(ROUND, (0, 2), b"1" * 32), OpeningClaim(ROUND, (0, 1), bytes(32)))
ANSWER = OpenedSum(np.array([-(2**40), 7], np.int64), (0, 2))


def test_refusals_are_the_protocols_own() -> None:
    assert issubclass(OpeningRefused, Refused)
    assert issubclass(AnotherSumClaimed, OpeningRefused) and issubclass(KeyRetired, OpeningRefused)


def test_an_answer_is_kept_over_a_restart(tmp_path: Path) -> None:
    guard = OpeningGuard(tmp_path / "a" / "b")
    assert guard.claim(CLAIM, "key") is None
    guard.store(CLAIM, ANSWER)
    again = OpeningGuard(tmp_path / "a" / "b").claim(CLAIM, "key")
    assert np.array_equal(again.values, ANSWER.values) and again.partners == (0, 2)


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_a_damaged_answer_is_opened_again(place: int, tmp_path: Path) -> None:
    guard = OpeningGuard(tmp_path)
    guard.claim(CLAIM, "key")
    guard.store(CLAIM, ANSWER)
    (path,) = (tmp_path / "answers").glob("*/*")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert guard.claim(CLAIM, "key") is None


def test_the_newest_answers_of_a_run_are_kept(tmp_path: Path) -> None:
    """An older one may be opened again, for the same claim alone."""
    guard = OpeningGuard(tmp_path)
    claims = [OpeningClaim(RoundId("run", number), (0, 2), bytes(32)) for number in range(8, 13)]
    for claim in claims:
        guard.claim(claim, "key")
        guard.store(claim, ANSWER)
    kept = [guard.claim(claim, "key") is not None for claim in claims]
    assert kept == [False, False, False, True, True]
    with pytest.raises(AnotherSumClaimed):
        guard.claim(OpeningClaim(RoundId("run", 8), (0, 2), b"1" * 32), "key")


def test_a_claim_without_an_answer_may_be_finished_but_not_changed(tmp_path: Path) -> None:
    """The process died between claim and answer."""
    OpeningGuard(tmp_path).claim(CLAIM, "key")
    for other in OTHERS:
        with pytest.raises(AnotherSumClaimed):
            OpeningGuard(tmp_path).claim(other, "key")
    with pytest.raises(AnotherSumClaimed):
        OpeningGuard(tmp_path).claim(CLAIM, "another key")
    assert OpeningGuard(tmp_path).claim(CLAIM, "key") is None


def test_rounds_and_runs_do_not_meet(tmp_path: Path) -> None:
    guard = OpeningGuard(tmp_path)
    for round_id in (RoundId("a", 1), RoundId("a", 11), RoundId("a1", 1), RoundId("", 1)):
        claim = OpeningClaim(round_id, (0,), os.urandom(32))
        assert guard.claim(claim, "key") is None


def test_retirement_holds_for_run_and_key(tmp_path: Path) -> None:
    guard = OpeningGuard(tmp_path)
    guard.claim(CLAIM, "key")
    guard.store(CLAIM, ANSWER)
    guard.retire(ROUND, "key")
    again = OpeningGuard(tmp_path)
    for claim, key in ((CLAIM, "key"), (OpeningClaim(RoundId("new", 1), (0,), b""), "key"),
                       (OpeningClaim(RoundId(ROUND.run, 2), (0,), b""), "new")):
        with pytest.raises(KeyRetired):
            again.claim(claim, key)
    assert again.claim(OpeningClaim(RoundId("new", 1), (0,), b""), "new") is None


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    guard = OpeningGuard(tmp_path / "guard")
    guard.claim(CLAIM, "key")
    guard.retire(ROUND, "key")
    assert [path.name for path in tmp_path.iterdir()] == ["guard"]
    assert not [path for path in (tmp_path / "guard").rglob(".*")]


def _race(folder: Path, number: int, start: object, answers: object) -> None:
    guard = OpeningGuard(folder)
    start.wait(60)
    won = []
    for round_number in range(40):
        claim = OpeningClaim(RoundId("r", round_number), (0,), bytes([number]) * 32)
        try:
            guard.claim(claim, "key")
            won.append(round_number)
        except AnotherSumClaimed:
            pass
    answers.put(won)


def test_of_two_processes_one_wins_each_round(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.SimpleQueue()
    racers = [context.Process(target=_race, args=(tmp_path, i, start, answers)) for i in (1, 2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
        assert racer.exitcode == 0
    won = answers.get() + answers.get()
    assert sorted(won) == list(range(40))


def _hold(folder: Path, entered: object) -> None:
    with OpeningGuard(folder).exclusive():
        entered.set()
        os._exit(0)  # as a crash would: nothing is cleaned up


def test_a_crash_lets_go_of_the_guard(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, entered))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    with OpeningGuard(tmp_path).exclusive():
        pass


def test_an_opening_that_died_before_its_answer_can_be_finished(
        federate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federate("shared_key")
    values = [made.values(i) for i in range(2)]
    blocks = made.add([made.seal(v, i) for i, v in enumerate(values)])
    with monkeypatch.context() as patch:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(OpeningGuard, "store", die)
        with pytest.raises(KeyboardInterrupt):
            made.open(blocks, (0, 1))
    with pytest.raises(AnotherSumClaimed):
        made.open(made.add([made.seal(v, i) for i, v in enumerate(values)]), (0, 1))
    assert np.array_equal(made.open(blocks, (0, 1)).values, sum(values))


def test_a_stored_answer_does_not_use_the_key_again(
        federate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federate("shared_key")
    blocks = made.add([made.seal(made.values(i), i) for i in range(2)])
    first = made.open(blocks, (0, 1))
    opener = SumOpener(made.key, made.layout, OpeningGuard(made.folder), 1)
    monkeypatch.setattr(opener, "_open", lambda *_: pytest.fail("opened twice"))
    again = opener.open(OpeningClaim(RoundId("5eed", 1), (0, 1), digest(blocks)), blocks)
    assert np.array_equal(first.values, again.values)
