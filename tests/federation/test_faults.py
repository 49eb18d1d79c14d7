"""The protocol under misbehaving clients and a misbehaving network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
from flwr.app import Array, ArrayRecord, Error, Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

import experiments.local_grid
import experiments.simulate
from conf.schema import Config
from encryption.parameters import choose_parameters
from encryption.processes import HelperLost
from encryption.shared_sum import Sums
from encryption.types import Accumulator
from experiments.local_grid import run_server_app
from learning.results import RunResult
from strategies.cohort import TooFewUpdates
from strategies.fedavg import OpeningFailed
from strategies.layout import parse_train_reply, train_reply
from tests.keyholder.forging import place_of, relabel

Fault = Callable[[Message], list[Message]]


class FaultyGrid(Grid):
    """Passes everything to ``inner``; ``fault`` sees each reply to a message of type "train"
    and gives what the server shall get instead: none, one or several messages."""

    def __init__(self, inner: Grid, fault: Callable[[Message], list[Message]]) -> None:
        self._inner, self._fault = inner, fault

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        return self._inner.run

    def create_message(self, *args, **kwargs) -> Message:  # type: ignore[no-untyped-def]
        return self._inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._inner.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        out: list[Message] = []
        for message in self._inner.pull_messages(message_ids):
            seen = message.metadata.message_type == "train" or message.has_error()
            out += self._fault(message) if seen else [message]
        return out

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._inner.send_and_receive(messages, timeout=timeout)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config, Fault], RunResult]:
    def run(config: Config, fault: Fault) -> RunResult:
        def wrapped(app, grid, run_config):  # type: ignore[no-untyped-def]
            return run_server_app(app, FaultyGrid(grid, fault), run_config)

        monkeypatch.setattr(experiments.local_grid, "run_server_app", wrapped)
        return experiments.simulate.simulate(config)

    return run


def _of(message: Message, partner: str, number: int) -> bool:
    if not message.has_content() or "head" not in message.content:
        return False
    head = message.content["head"]
    return head.get("partner") == partner and head.get("round") == number


def _refused(result: RunResult) -> dict[str, str]:
    import mlflow

    tags = mlflow.MlflowClient(result.tracking_uri).get_run(result.mlflow_run_id).data.tags
    return {key: value for key, value in tags.items() if key.startswith("refused.")}


def _answered(result: RunResult) -> list[float]:
    import mlflow

    client = mlflow.MlflowClient(result.tracking_uri)
    return [point.value for point in
            client.get_metric_history(result.mlflow_run_id, "cohort/answered")]


QUORUM = {"quorum": 2, "rounds": 3, "timeout_s": 20.0}


def _corrupt(message: Message) -> None:
    body = message.content["body"]
    name = next(iter(body))
    data = bytearray(body[name].data)
    data[:64] = b"\xff" * 64
    body[name] = Array("uint8", (len(data),), body[name].stype, bytes(data))


def _other_round(message: Message) -> None:
    message.content["head"]["round"] = 3


def _other_fingerprint(message: Message) -> None:
    message.content["head"]["fingerprint"] = "00" * 32


def _other_partner(message: Message) -> None:
    message.content["head"]["partner"] = "north"


def _no_body(message: Message) -> None:
    message.content["body"] = ArrayRecord()


def _truncate(message: Message) -> None:
    body = message.content["body"]
    name = next(iter(body))
    data = body[name].data[:-8]
    body[name] = Array("uint8", (len(data),), body[name].stype, data)


@pytest.mark.parametrize(("change", "reason"), [
    (_corrupt, ""), (_other_round, "another round"), (_other_fingerprint, "parameters differ"),
    (_other_partner, "another partner"), (_no_body, "length"), (_truncate, "length"),
], ids=lambda value: getattr(value, "__name__", None))
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on(  # type: ignore[no-untyped-def]
        configure, faulty, change, reason) -> None:
    def fault(message: Message) -> list[Message]:
        if _of(message, "west", 2):
            change(message)
        return [message]

    result = faulty(configure(strategy=QUORUM), fault)
    assert _answered(result) == [3, 2, 3]
    assert list(_refused(result)) == ["refused.west.round_2"]
    assert reason in _refused(result)["refused.west.round_2"]


def test_a_duplicate_reply_counts_once(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    result = faulty(configure(strategy=QUORUM), lambda message: [message, message])
    assert _answered(result) == [3, 3, 3]
    assert len(_refused(result)) == 9
    assert set(_refused(result).values()) == {"it answered this round already"}


def test_an_error_reply_costs_only_that_partner(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    def fault(message: Message) -> list[Message]:
        if _of(message, "east", 1):
            return [_as_error(message)]
        return [message]

    result = faulty(configure(strategy={**QUORUM, "opener": "west"}), fault)
    assert _answered(result) == [2, 3, 3]


def _as_error(message: Message) -> Message:
    from flwr.app.message.message import make_message

    return make_message(message.metadata, error=Error(5, "secret of a customer"))


def test_a_late_partner_is_left_out_after_the_timeout(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    config = configure(strategy={**QUORUM, "timeout_s": 3.0, "rounds": 2})

    def lost(message: Message) -> list[Message]:
        """The reply is held back, and so is the grid's word that it was delivered."""
        return [] if _of(message, "west", 2) or message.has_error() else [message]

    result = faulty(config, lost)
    assert _answered(result) == [3, 2]
    assert _refused(result) == {"refused.west.round_2": "no answer in time"}


def test_below_the_quorum_nothing_is_opened(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    config = configure(strategy={"timeout_s": 3.0})
    with pytest.raises(TooFewUpdates) as caught:
        faulty(config, lambda message: [] if _of(message, "west", 1) else [message])
    assert (caught.value.got, caught.value.need) == (2, 3)


def test_another_partners_blocks_are_refused(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    """The network gives one partner's ciphertext as another's: its header says whose it is."""
    kept: dict[int, Message] = {}

    def fault(message: Message) -> list[Message]:
        if _of(message, "east", 1):
            kept[1] = message
        if _of(message, "west", 1) and 1 in kept:
            message.content["body"] = kept[1].content["body"]
        return [message]

    with pytest.raises(TooFewUpdates, match="west: the blocks belong to another client"):
        faulty(configure(federation={"workers": 1}), fault)


def test_a_forged_sum_ends_the_run(configure, faulty) -> None:  # type: ignore[no-untyped-def]
    """As above, with headers rewritten to fit."""
    kept: dict[int, Message] = {}

    def fault(message: Message) -> list[Message]:
        if _of(message, "east", 1):
            kept[1] = message
        if _of(message, "west", 1) and 1 in kept:
            config = configure(federation={"workers": 1})
            parameters = choose_parameters(config.encryption.name, 3, config.encryption.bits)
            blocks = parse_train_reply(kept[1]).blocks
            client = place_of(parse_train_reply(message).blocks[0]).client
            forged = replace(parse_train_reply(message), blocks=tuple(
                relabel(parameters, block, client=client) for block in blocks))
            message.content = train_reply(forged)
        return [message]

    with pytest.raises(OpeningFailed, match=r"PartnerMapMismatch|TagMismatch"):
        faulty(configure(federation={"workers": 1}), fault)


def test_a_sum_that_is_lost_is_collected_again_from_the_same_bytes(  # type: ignore[no-untyped-def]
        configure, faulty, monkeypatch) -> None:
    """A process that adds a part of the blocks dies in round 2."""
    start, started, sent = Sums.start, [], {}

    def dying(self: Sums, number: int) -> Accumulator:
        accumulator, attempt = start(self, number), started.count(number)
        started.append(number)
        fold = accumulator.fold

        def lose(blocks: Sequence[bytes], client: int | None = None) -> None:
            sent.setdefault((number, client), set()).add(tuple(blocks))
            if (number, attempt, accumulator.count) == (2, 0, 1):
                raise HelperLost("a helper process ended")
            fold(blocks, client)

        monkeypatch.setattr(accumulator, "fold", lose)
        return accumulator

    monkeypatch.setattr(Sums, "start", dying)
    result = faulty(configure(strategy=QUORUM), lambda message: [message])
    assert _answered(result) == [3, 3, 3] and not _refused(result)
    assert started == [1, 2, 2, 3, 4]
    assert len(sent) == 12 and all(len(bytes_sent) == 1 for bytes_sent in sent.values())
