"""A site that is restarted in the middle of a run comes back as another Flower node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from flwr.app import Error, Message
from flwr.serverapp import Grid

import experiments.local_grid
import experiments.simulate
from conf.schema import Config
from experiments.local_grid import LocalGrid, run_server_app
from learning.results import RunResult
from strategies import layout
from strategies.fedavg import OpeningFailed
from tests.federation.test_faults import FaultyGrid, _answered, _refused

DIED = "a message whose node died"


class RestartedGrid(FaultyGrid):
    """The site of ``partner`` dies once, at a message of type ``kind`` in round ``number``:
    ``after`` its work or before it. Flower notices, and it comes back under another node id."""

    def __init__(self, inner: LocalGrid, partner: str, kind: str, number: int, after: bool) -> None:
        super().__init__(inner, lambda message: [message])
        self.home = next(node for node, name in inner.names.items() if name == partner)
        self.node, self._due, self._after = self.home, (kind, str(number)), after
        self._died: Message | None = None

    def get_node_ids(self) -> Iterable[int]:
        return [self.node if node == self.home else node for node in super().get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        about = message.metadata
        if about.dst_node_id != self.node:
            (message_id,) = super().push_messages([message])
            return message_id
        if self._died is None and (about.message_type, about.group_id) == self._due:
            if self._after:
                super().push_messages([self._for_home(message)])
            message.metadata.__dict__["_message_id"] = DIED
            self._died, self.node = message, self.home ^ 1
            return DIED
        (message_id,) = super().push_messages([self._for_home(message)])
        return message_id

    def _for_home(self, message: Message) -> Message:
        about = message.metadata
        return Message(message.content, self.home, about.message_type, group_id=about.group_id)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if list(message_ids) == [DIED]:
            assert self._died is not None
            return [Message(Error(5, "no heartbeat"), reply_to=self._died)]
        return super().pull_messages(message_ids)


@pytest.fixture
def on_grid(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    """on_grid(config, wrap): simulate with ``wrap(grid)`` in place of the grid."""

    def run(config: Config, wrap: Callable[[LocalGrid], Grid]) -> RunResult:
        def wrapped(app, grid, run_config):  # type: ignore[no-untyped-def]
            return run_server_app(app, wrap(grid), run_config)

        monkeypatch.setattr(experiments.local_grid, "run_server_app", wrapped)
        return experiments.simulate.simulate(config)

    return run


ONCE = {(partner, kind): count for partner in ("east", "north", "west")
        for kind, count in (("train", 2), ("test", 1))}


@pytest.mark.parametrize(("partner", "kind", "number", "opening", "after"), [
    ("west", layout.TRAIN, 1, "revealed", False), ("west", layout.TRAIN, 2, "sealed", True),
    ("west", layout.TRAIN, 3, "revealed", True), ("north", layout.OPEN, 1, "revealed", True),
    ("north", layout.OPEN, 2, "sealed", False), ("north", layout.OPEN, 2, "sealed", True)],
    ids=["before it trains", "after it trained", "after its test", "after it opened",
         "before it opens and seals", "after it opened and sealed"])
def test_a_restarted_site_answers_the_same_round(  # type: ignore[no-untyped-def]
        configure, on_grid, answers, tmp_path: Path, partner: str, kind: str, number: int,
        opening: str, after: bool) -> None:
    """With all partners as quorum; nobody draws noise twice, spends twice or is added twice."""
    grids: list[RestartedGrid] = []

    def wrap(grid: LocalGrid) -> RestartedGrid:
        grids.append(RestartedGrid(grid, partner, kind, number, after))
        return grids[-1]

    config = configure(strategy={"opener": "north", "rounds": 2}, encryption={"opening": opening},
                       federation={"folder": str(tmp_path / "f")})
    result = on_grid(config, wrap)
    assert grids[0].node != grids[0].home
    assert _answered(result) == [3, 3] and not _refused(result)
    assert answers == ONCE
    ledgers = [path.read_text().splitlines() for path in (tmp_path / "f").rglob("ledger.jsonl")]
    assert len(ledgers) == 3
    for lines in ledgers:
        assert sorted(json.loads(line)["round"] for line in lines) == [0, 1, 2]


class VisitedGrid(FaultyGrid):
    """The site of "west" is connected while ``there``(answers that partners gave so far)."""

    def __init__(self, inner: LocalGrid, there: Callable[[int], bool]) -> None:
        super().__init__(inner, self._seen)
        self._west = next(node for node, name in inner.names.items() if name == "west")
        self._there, self._answered = there, 0

    def _seen(self, message: Message) -> list[Message]:
        self._answered += message.has_content()
        return [message]

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids()
                if self._there(self._answered) or node != self._west]


def test_a_partner_that_connects_late_takes_part(configure, on_grid) -> None:  # type: ignore[no-untyped-def]
    """It missed the start, whose quorum was met without it."""
    config = configure(strategy={"quorum": 2, "rounds": 4, "timeout_s": 10.0})
    result = on_grid(config, lambda grid: VisitedGrid(grid, lambda answered: answered >= 2))
    answered = _answered(result)
    assert answered[0] == 2 and answered[-1] == 3 and answered == sorted(answered)


def test_a_round_goes_on_without_a_partner_that_left(configure, on_grid) -> None:  # type: ignore[no-untyped-def]
    config = configure(strategy={"quorum": 2, "rounds": 2, "timeout_s": 300.0})
    result = on_grid(config, lambda grid: VisitedGrid(grid, lambda answered: answered < 3))
    assert _answered(result) == [3, 2]
    assert _refused(result) == {"refused.west.round_2": "its node is not connected"}


def test_an_opener_that_stays_away_ends_the_run(configure, on_grid) -> None:  # type: ignore[no-untyped-def]
    class Away(RestartedGrid):
        def get_node_ids(self) -> Iterable[int]:
            return [node for node in super().get_node_ids() if node != self.home ^ 1]

    config = configure(strategy={"opener": "north", "timeout_s": 5.0})
    with pytest.raises(OpeningFailed, match=r"north did not answer within 5 s.*Flower error 5"):
        on_grid(config, lambda grid: Away(grid, "north", layout.OPEN, 2, True))
