"""A head survives restarts, moves once a round, and never serves another run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.heads import HeadDamaged, HeadStore
from encryption.types import RoundId
from strategies.optimiser import ServerState

RUN = "ab" * 32


def _state(number: int, value: float = 1.0) -> ServerState:
    return ServerState(number, *(np.full(3, value * i) for i in range(1, 5)), averaged=number)


@pytest.fixture
def store(tmp_path: Path) -> HeadStore:
    return HeadStore(tmp_path, ServerState.start(np.zeros(3)))


def _same(one: ServerState, other: ServerState) -> bool:
    return (one.round, one.averaged) == (other.round, other.averaged) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("model", "velocity", "second", "mean"))


def test_a_round_begins_where_an_earlier_one_ended(store: HeadStore) -> None:
    assert store.before(RoundId(RUN, 1)) is store.start
    for number in (1, 2, 5):
        store.put(RoundId(RUN, number), _state(number))
    for asked, found in ((6, 5), (99, 5), (5, 2), (3, 2)):
        again = HeadStore(store.folder, store.start)
        assert _same(again.before(RoundId(RUN, asked)), _state(found))
    assert store.before(RoundId("cd" * 32, 6)) is store.start


def test_a_round_that_was_cut_off_begins_again_from_where_it_began(store: HeadStore) -> None:
    """The head is on disk before the reply: without a reply, the round is trained anew, and must
    not count twice."""
    store.put(RoundId(RUN, 1), _state(1))
    store.put(RoundId(RUN, 2), _state(2))
    assert _same(store.before(RoundId(RUN, 2)), _state(1))
    store.put(RoundId(RUN, 2), _state(2, value=7.0))
    assert _same(store.before(RoundId(RUN, 3)), _state(2, value=7.0))


def _file(store: HeadStore) -> Path:
    store.put(RoundId(RUN, 4), _state(4))
    (path,) = store.folder.rglob("*.head")
    return path


def test_only_this_user_can_read_it(store: HeadStore) -> None:
    assert _file(store).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: content + b"x", lambda content: b"",
    lambda content: content[:90] + bytes([content[90] ^ 1]) + content[91:],
    lambda content: content[:50]])
def test_a_damaged_head_is_refused(store: HeadStore, damage) -> None:  # type: ignore[no-untyped-def]
    path = _file(store)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HeadDamaged):
        store.before(RoundId(RUN, 5))


def test_another_runs_or_models_head_is_refused(store: HeadStore) -> None:
    path = _file(store)
    smaller = HeadStore(store.folder, ServerState.start(np.zeros(2)))
    with pytest.raises(HeadDamaged, match="another run's or round's"):
        smaller.before(RoundId(RUN, 9))
    path.rename(path.with_name("000000007.head"))
    with pytest.raises(HeadDamaged, match="another run's or round's"):
        store.before(RoundId(RUN, 9))
