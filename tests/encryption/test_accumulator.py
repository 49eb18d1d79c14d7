"""Folding is all or nothing, keeps its memory, and counts."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import Refused, RoundId
from encryption.wire import HEADER_BYTES, frame
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
from tests.keyholder import forging

SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
ROUND = RoundId("5eed", 1)


@pytest.fixture(params=SUITES)
def federation(request: pytest.FixtureRequest):
    parameters = choose_parameters(request.param, 3, 8)
    layout = ControlLayout(70_000, 3, parameters)
    key = SharedKey.generate(parameters)
    values = np.arange(70_000, dtype=np.int64) % 256 - 128
    return parameters, layout, [Sealer(key, layout, i).seal(values, ROUND) for i in range(3)]


def test_a_bad_block_changes_nothing(federation) -> None:
    _, layout, updates = federation
    accumulator = make_accumulator(layout)
    accumulator.fold(updates[0])
    before = accumulator.finish()
    good = updates[1]
    assert len(good) > 2
    for bad in ((*good[:-1], good[-1][:-1]), good[:-1], (*good, good[-1]), (),
                (good[1], good[0], *good[2:]), (*good[:-1], b"")):
        with pytest.raises(Refused):
            accumulator.fold(bad)
        assert accumulator.count == 1
        assert accumulator.finish() == before
    accumulator.fold(good)
    assert accumulator.count == 2 and accumulator.finish() != before


def test_the_order_of_clients_does_not_matter(federation) -> None:
    _, layout, updates = federation
    sums = []
    for order in ((0, 1, 2), (2, 0, 1)):
        accumulator = make_accumulator(layout)
        for i in order:
            accumulator.fold(updates[i])
        sums.append(accumulator.finish())
    assert sums[0] == sums[1]


def test_a_sum_is_no_update(federation) -> None:
    _, layout, updates = federation
    accumulator = make_accumulator(layout)
    accumulator.fold(updates[0])
    with pytest.raises(Refused):
        accumulator.fold(accumulator.finish())


def test_no_more_than_the_parameters_can_sum(federation) -> None:
    _, layout, updates = federation
    accumulator = make_accumulator(layout)
    for update in updates:
        accumulator.fold(update)
    with pytest.raises(Refused, match="as many updates"):
        accumulator.fold(updates[0])
    assert accumulator.count == 3


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_folded_is_an_error_of_the_caller(suite: str) -> None:
    accumulator = make_accumulator(ControlLayout(10, 3, choose_parameters(suite, 3, 8)))
    with pytest.raises(ValueError, match="nothing was folded"):
        accumulator.finish()


def test_the_digest_separates_sums(federation) -> None:
    """By number, order and every bit of a body, through the digests in the headers."""
    parameters, layout, updates = federation
    accumulator = make_accumulator(layout)
    accumulator.fold(updates[0])
    total = accumulator.finish()
    body = bytearray(total[0][HEADER_BYTES:])
    body[100] ^= 1
    changed = frame(parameters, forging.place_of(total[0]), bytes(body))
    seen = {digest(blocks) for blocks in (
        (), total, total[:-1], (total[1], total[0], *total[2:]), (changed, *total[1:]),
        tuple(forging.relabel(parameters, block, round=2) for block in total))}
    assert len(seen) == 6
    assert digest((b"ab",)).hex() == hashlib.sha256(
        b"veilsum sum 2\0" + (1).to_bytes(8, "little") + b"ab").hexdigest()


@pytest.mark.parametrize("suite", ("shared_key", "shared_key_rlwe"))
def test_memory_does_not_grow_with_the_cohort(suite: str) -> None:
    parameters = choose_parameters(suite, 256, 8)
    layout = ControlLayout(40_000, 256, parameters)
    key = SharedKey.generate(parameters)
    update = Sealer(key, layout, 0).seal(np.zeros(40_000, np.int64), ROUND)
    accumulator = make_accumulator(layout)

    def fold(clients: range) -> None:
        for client in clients:
            accumulator.fold([forging.relabel(parameters, block, client=client)
                              for block in update], client)

    fold(range(4))
    rss = _resident()
    tracemalloc.start()
    fold(range(4, 256))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000
    assert _resident() - rss < 8_000_000  # 252 clients' ciphertexts would be 30 MB


def test_updates_must_belong_to_the_round_and_to_one_client(federation) -> None:
    parameters, layout, updates = federation
    accumulator = make_accumulator(layout, 1)
    first, second = updates[:2]
    accumulator.fold(first, 0)
    with pytest.raises(Refused, match="another client"):
        accumulator.fold(second, 2)
    with pytest.raises(Refused, match="already holds an update of this client"):
        accumulator.fold(first)
    with pytest.raises(Refused, match="different rounds or clients"):
        accumulator.fold((forging.relabel(parameters, second[0], client=2), *second[1:]))
    with pytest.raises(Refused, match="another client"):
        accumulator.fold([forging.relabel(parameters, block, client=3) for block in second])
    later = [forging.relabel(parameters, block, round=2) for block in second]
    with pytest.raises(Refused, match="another round"):
        accumulator.fold(later)
    assert accumulator.count == 1
    accumulator.fold(second, 1)


def _resident() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096
