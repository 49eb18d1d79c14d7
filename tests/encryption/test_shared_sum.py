"""A sum that several cores add is, byte for byte, the one that a single core adds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import encryption.shared_sum
from encryption.accumulator import make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.processes import HelperLost
from encryption.shared_sum import SharedSum, Sums
from encryption.types import Refused, RoundId
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
from tests.encryption.test_accumulator import _resident
from tests.keyholder import forging

SUITES = ("shared_key", "shared_key_rlwe")
ROUND = RoundId("5eed", 1)
VALUES = 130_001
Updates = list[tuple[bytes, ...]]


def _update(layout: ControlLayout, key: SharedKey, client: int) -> tuple[bytes, ...]:
    values = np.arange(VALUES, dtype=np.int64) * (client + 1) % 256 - 128
    return Sealer(key, layout, client).seal(values, ROUND)


@pytest.fixture(params=SUITES)
def updates(request: pytest.FixtureRequest) -> tuple[ControlLayout, Updates]:
    layout = ControlLayout(VALUES, 3, choose_parameters(request.param, 3, 8))
    key = SharedKey.generate(layout.parameters)
    return layout, [_update(layout, key, client) for client in range(3)]


@pytest.fixture
def shared() -> Iterator[Callable[..., Sums]]:
    made: list[Sums] = []

    def make(layout: ControlLayout, processes: int = 2) -> Sums:
        made.append(Sums(layout, processes))
        assert all(helper.ready(60) for helper in made[-1].helpers)
        return made[-1]

    yield make
    for sums in made:
        sums.close()


@pytest.mark.parametrize("processes", (2, 3))
def test_the_sum_is_the_same(updates, shared, processes: int) -> None:  # type: ignore[no-untyped-def]
    layout, made = updates
    sums = shared(layout, processes)
    assert len(sums.helpers) == processes - 1
    for number in (1, 2):  # a second round begins from nothing
        total, alone = sums.start(number), make_accumulator(layout, number)
        assert isinstance(total, SharedSum)
        with pytest.raises(ValueError, match="nothing was folded"):
            total.finish()
        for client, update in enumerate(made):
            sent = [forging.relabel(layout.parameters, block, round=number) for block in update]
            total.fold(sent, client)
            alone.fold(sent, client)
            assert total.count == client + 1
        assert total.finish() == alone.finish() == total.finish()


def test_a_fold_is_whole_or_nothing_in_every_part(updates, shared) -> None:  # type: ignore[no-untyped-def]
    layout, (first, second, _) = updates
    parameters = layout.parameters
    total = shared(layout).start(1)
    total.fold(first, 0)
    before = total.finish()

    def damaged(at: int) -> tuple[bytes, ...]:
        changed = bytearray(second[at])
        changed[-1] ^= 1
        return (*second[:at], bytes(changed), *second[at:][1:])

    def named(**changes: int) -> list[bytes]:
        return [forging.relabel(parameters, block, **changes) for block in second]

    half = layout.blocks // 2
    for bad, why in (
            (damaged(0), "damaged"), (damaged(len(second) - 1), "damaged"),
            (second[1:], "number of blocks"), ((second[0][:-1], *second[1:]), "size"),
            ((second[0], second[0], *second[2:]), "place"), ((7, *second[1:]), "bytes|size"),
            (first, "another client"), (named(round=2), "another round"),
            (named(client=2), "another client"),
            ((*named(client=1)[:half], *named(client=2)[half:]), "another client|different")):
        with pytest.raises(Refused, match=why):
            total.fold(bad, 1)
        assert total.count == 1 and total.finish() == before
    with pytest.raises(Refused, match="already holds"):
        total.fold(first, 0)
    with pytest.raises(Refused, match="different rounds or clients"):
        total.fold((*named(client=1)[:half], *named(client=2)[half:]))
    total.fold(second, 1)
    alone = make_accumulator(layout)
    alone.fold(first)
    alone.fold(second)
    assert total.finish() == alone.finish()


def test_a_lost_helper_loses_this_sum_and_no_other(shared, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    layout = ControlLayout(VALUES, 3, choose_parameters("shared_key", 3, 8))
    key = SharedKey.generate(layout.parameters)
    made = [_update(layout, key, client) for client in range(2)]
    for how in (signal.SIGKILL, signal.SIGSTOP):
        sums = shared(layout)
        total = sums.start(1)
        total.fold(made[0])
        os.kill(sums.helpers[0].pid, how)
        with monkeypatch.context() as patched, pytest.raises(HelperLost):
            patched.setattr(encryption.shared_sum, "_PATIENCE_S", 0.2)
            total.fold(made[1])
        again, alone = sums.start(1), make_accumulator(layout, 1)
        for accumulator in (again, alone):
            accumulator.fold(made[0])
        assert not isinstance(again, SharedSum) and again.finish() == alone.finish()


def test_what_is_not_started_yet_is_not_waited_for() -> None:
    layout = ControlLayout(VALUES, 3, choose_parameters("shared_key", 3, 8))
    sums = Sums(layout, 2)
    os.kill(sums.helpers[0].pid, signal.SIGSTOP)
    assert not isinstance(sums.start(1), SharedSum)
    sums.close()


def test_small_sums_are_not_shared() -> None:
    for suite, values, processes in (("shared_key", 1000, 4), ("plaintext", VALUES, 2),
                                     ("shared_key", VALUES, None)):
        sums = Sums(ControlLayout(values, 3, choose_parameters(suite, 3, 8)), processes)
        assert not sums.helpers and not isinstance(sums.start(1), SharedSum)


@pytest.mark.parametrize("suite", SUITES)
def test_memory_does_not_grow_with_the_cohort(suite: str, shared) -> None:  # type: ignore[no-untyped-def]
    layout = ControlLayout(VALUES, 256, choose_parameters(suite, 256, 8))
    update = _update(layout, SharedKey.generate(layout.parameters), 0)
    sums = shared(layout)
    total = sums.start(1)

    def fold(clients: range) -> None:
        for client in clients:
            total.fold([forging.relabel(layout.parameters, block, client=client)
                        for block in update], client)

    def resident() -> int:
        return _resident() + sum(
            int(Path(f"/proc/{helper.pid}/statm").read_text().split()[1]) * 4096
            for helper in sums.helpers)

    fold(range(8))
    before = resident()
    fold(range(8, 128))
    assert resident() - before < 8_000_000  # 120 clients' ciphertexts would be 25 MB and more
