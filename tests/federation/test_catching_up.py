"""Sites that missed rounds, or lost the models that they had stepped, go on in the same round."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from flwr.app import Message

import experiments.simulate
from experiments.local_grid import LocalGrid
from strategies import layout
from strategies.cohort import TooFewUpdates
from tests.federation.test_faults import FaultyGrid, _answered, _refused
from tests.federation.test_return import VisitedGrid, on_grid

__all__ = ["on_grid"]


class ListeningGrid(FaultyGrid):
    """``heard``(partner, kind of message, round, message) before each that is sent."""

    def __init__(self, inner: LocalGrid, heard: Callable[[str, str, str, Message], None]) -> None:
        super().__init__(inner, lambda message: [message])
        self._names, self._heard = inner.names, heard

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            about = message.metadata
            self._heard(self._names[about.dst_node_id], about.message_type, about.group_id, message)
        return super().push_messages(messages)


def _rounds(message: Message) -> list[int]:
    """Of the receipts that a request carries."""
    content = message.content
    parse = layout.parse_open_request if "body" in content else layout.parse_train_request
    request = parse(content)
    return [receipt.round for receipt in request.receipts]


@pytest.mark.parametrize(("partner", "kind"), [("west", layout.TRAIN), ("east", layout.TRAIN),
                                               ("east", layout.OPEN)])
def test_a_site_that_lost_its_models_is_sent_every_receipt(  # type: ignore[no-untyped-def]
        configure, on_grid, answers, tmp_path: Path, partner: str, kind: str) -> None:
    """"east" opens. All partners are the quorum: the round goes on with nobody less."""
    sent: dict[tuple[str, str, str], list[list[int]]] = {}

    def heard(name: str, of: str, number: str, message: Message) -> None:
        if (name, of, number) == (partner, kind, "4"):
            shutil.rmtree(tmp_path / "f" / "state" / partner / "models", ignore_errors=True)
        if of != layout.JOIN:
            sent.setdefault((name, of, number), []).append(_rounds(message))

    config = configure(strategy={"rounds": 4}, federation={"folder": str(tmp_path / "f")})
    result = on_grid(config, lambda grid: ListeningGrid(grid, heard))
    assert _answered(result) == [3, 3, 3, 3] and not _refused(result)
    assert set(answers.values()) == {4, 1}
    usual = [3] if kind == layout.TRAIN else []
    assert sent.pop((partner, kind, "4")) == [usual, [1, 2, 3]]
    for (_, of, number), receipts in sent.items():
        asked = [int(number) - 1] if of == layout.TRAIN and number != "1" else []
        assert receipts == [asked]


def test_who_joins_late_is_sent_what_it_missed_and_no_more(configure, on_grid) -> None:  # type: ignore[no-untyped-def]
    sent: dict[str, list[int]] = {}

    class Both(VisitedGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            for message in messages:
                about = message.metadata
                if about.message_type == layout.TRAIN and about.dst_node_id == self._west:
                    sent[about.group_id] = _rounds(message)
            return super().push_messages(messages)

    config = configure(strategy={"quorum": 2, "rounds": 4, "timeout_s": 10.0})
    result = on_grid(config, lambda grid: Both(grid, lambda answered: answered >= 2))
    assert _answered(result)[0] == 2 and _answered(result)[-1] == 3
    first = min(map(int, sent))
    assert first > 1 and sent[str(first)] == list(range(1, first))
    assert all(sent[str(number)] == [number - 1] for number in range(first + 1, 6))


def test_a_server_that_lost_a_receipt_says_who_cannot_go_on(  # type: ignore[no-untyped-def]
        configure, on_grid, monkeypatch, tmp_path: Path) -> None:
    """Nobody is asked for ever."""
    from server.checkpoint import Checkpoints

    monkeypatch.setattr(Checkpoints, "receipts", lambda self, after, last: ())
    config = configure(federation={"folder": str(tmp_path / "f")})
    with pytest.raises(TooFewUpdates, match="ReceiptsMissing"):
        experiments.simulate.simulate(config)
