"""What a message meets on the local grid: a SuperLink with SuperNodes, to all appearances."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from experiments.local_grid import LocalGrid

Answer = Callable[[Message, Context], Message]
NODES = {name: {"partner": name} for name in ("ada", "bea", "cem")}


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@contextmanager
def grid_of(answer: Answer, workers: int = 3, **run_config: str) -> Iterator[LocalGrid]:
    app = ClientApp()
    app.train()(answer)
    with LocalGrid(app, NODES, run_config, workers=workers) as grid:
        yield grid


def content(**metrics: float) -> RecordDict:
    return RecordDict({
        "metrics": MetricRecord(dict(metrics)),
        "config": ConfigRecord({"raw": b"\x00\xff", "words": ["a"]}),
        "arrays": ArrayRecord({"x": Array(np.arange(3.0))}),
    })


def to_all(grid: Grid, **keywords: float) -> list[Message]:
    return [Message(content(x=1.0), node, "train", group_id="1", **keywords)
            for node in grid.get_node_ids()]


def wait_for(grid: Grid, ids: Iterable[str], count: int, patience_s: float = 5.0) -> list[Message]:
    ids, found = list(ids), []
    deadline = time.monotonic() + patience_s
    while len(found) < count and time.monotonic() < deadline:
        for message in grid.pull_messages(ids):
            ids.remove(message.metadata.reply_to_message_id)
            found.append(message)
        time.sleep(0.002)
    return found


def test_every_node_answers_with_its_own_config_and_the_run_config() -> None:
    def answer(message: Message, context: Context) -> Message:
        words = {"partner": context.node_config["partner"], "run": context.run_config["config"]}
        return Message(RecordDict({"c": ConfigRecord(words)}), reply_to=message)

    with grid_of(answer, config="{}") as grid:
        asked = to_all(grid)
        replies = list(grid.send_and_receive(asked, timeout=5))
        by_node = {reply.metadata.src_node_id: reply.content["c"] for reply in replies}
        assert {node: dict(c) for node, c in by_node.items()} == {
            node: {"partner": name, "run": "{}"} for node, name in grid.names.items()
        }
        assert {reply.metadata.reply_to_message_id for reply in replies} == {
            message.metadata.message_id for message in asked}
        assert all(reply.metadata.group_id == "1" and reply.metadata.run_id == grid.run.run_id
                   and reply.metadata.message_id for reply in replies)


def test_content_arrives_unchanged() -> None:
    with grid_of(echo) as grid:
        (reply,) = grid.send_and_receive(to_all(grid)[:1], timeout=5)
        assert reply.content == content(x=1.0)
        np.testing.assert_array_equal(reply.content["arrays"]["x"].numpy(), np.arange(3.0))


def test_state_persists_over_messages_and_belongs_to_one_node() -> None:
    def count(message: Message, context: Context) -> Message:
        record = context.state.setdefault("n", MetricRecord({"n": 0}))
        record["n"] += 1
        return Message(RecordDict({"n": MetricRecord({"n": record["n"]})}), reply_to=message)

    with grid_of(count) as grid:
        first = grid.get_node_ids()[0]
        for _ in range(2):
            list(grid.send_and_receive(to_all(grid), timeout=5))
        (reply,) = grid.send_and_receive([Message(content(), first, "train")], timeout=5)
        assert reply.content["n"]["n"] == 3


def test_nothing_mutable_is_shared() -> None:
    kept: list[RecordDict] = []

    def keep_and_change(message: Message, context: Context) -> Message:
        kept.append(message.content)
        message.content["metrics"]["x"] = -1.0
        context.node_config["partner"] = "changed"
        context.run_config["config"] = "changed"
        context.state["kept"] = message.content["metrics"]
        return Message(message.content, reply_to=message)

    with grid_of(keep_and_change, config="first") as grid:
        shared = content(x=1.0)
        node = grid.get_node_ids()[0]
        replies = [reply for _ in range(2) for reply in grid.send_and_receive(
            [Message(shared, node, "train")], timeout=5)]
        assert shared["metrics"]["x"] == 1.0
        kept[0]["metrics"]["x"] = -2.0
        assert [reply.content["metrics"]["x"] for reply in replies] == [-1.0, -1.0]
        assert len({id(reply.content["arrays"]["x"]) for reply in replies}) == 2

        def look(message: Message, context: Context) -> Message:
            seen.append((dict(context.node_config), dict(context.run_config),
                         context.state["kept"]["x"]))
            return Message(RecordDict(), reply_to=message)

        seen: list[tuple[dict, dict, float]] = []
        grid._client_app = ClientApp()
        grid._client_app.train()(look)
        list(grid.send_and_receive([Message(shared, node, "train")], timeout=5))
        assert seen == [({"partner": grid.names[node]}, {"config": "first"}, -1.0)]


def test_a_message_changed_after_the_push_arrives_as_it_was() -> None:
    gate = threading.Event()

    def held(message: Message, context: Context) -> Message:
        gate.wait(5)
        return Message(message.content, reply_to=message)

    with grid_of(held) as grid:
        (message, *_) = to_all(grid)
        ids = grid.push_messages([message])
        message.content["metrics"]["x"] = 9.0
        gate.set()
        assert wait_for(grid, ids, 1)[0].content["metrics"]["x"] == 1.0


def test_an_exception_is_an_error_reply_with_what_flower_sends_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(message: Message, context: Context) -> Message:
        context.state["seen"] = MetricRecord({"n": 1})
        raise ZeroDivisionError("household 7")

    with grid_of(fail) as grid:
        (reply,) = grid.send_and_receive(to_all(grid)[:1], timeout=5)
        assert reply.has_error() and not reply.has_content()
        assert reply.error.code == 2
        assert reply.error.reason == "<class 'ZeroDivisionError'>:<'household 7'>"
        assert reply.metadata.src_node_id == grid.get_node_ids()[0]
    assert "Traceback" in caplog.text  # the site's own log has it all


@pytest.mark.parametrize("message_type", ["evaluate", "train.other"])
def test_an_unknown_action_is_an_error_reply(message_type: str) -> None:
    with grid_of(echo) as grid:
        node = grid.get_node_ids()[0]
        (reply,) = grid.send_and_receive([Message(content(), node, message_type)], timeout=5)
        assert reply.error.code == 2


def _exit(message: Message, context: Context) -> Message:
    raise SystemExit(1)


def _too_large_integer(message: Message, context: Context) -> Message:
    return Message(RecordDict({"n": MetricRecord({"n": 2**70})}), reply_to=message)


@pytest.mark.parametrize("answer", [
    _exit,
    _too_large_integer,
    lambda message, context: None,
    lambda message, context: Message(RecordDict(), message.metadata.dst_node_id, "train"),
], ids=["exits", "unsendable", "nothing", "answers no request"])
def test_a_crashed_client_is_an_error_reply_and_the_node_lives_on(answer: Answer) -> None:
    turns = iter([answer, echo])
    with grid_of(lambda message, context: next(turns)(message, context), workers=1) as grid:
        node = grid.get_node_ids()[0]
        crashed, fine = (
            next(iter(grid.send_and_receive([Message(content(), node, "train")], timeout=5)))
            for _ in range(2)
        )
        assert (crashed.error.code, crashed.error.reason) == (8, "ClientApp stopped responding.")
        assert fine.has_content()


def test_what_cannot_be_sent_is_refused_at_the_push() -> None:
    with grid_of(echo) as grid, pytest.raises((TypeError, ValueError)):
        bad = RecordDict({"n": MetricRecord({"n": 2**70})})
        grid.push_messages([Message(bad, grid.get_node_ids()[0], "train")])


def test_pulling_does_not_wait_and_delivers_once() -> None:
    gate = threading.Event()

    def held(message: Message, context: Context) -> Message:
        gate.wait(5)
        return echo(message, context)

    with grid_of(held) as grid:
        (message_id,) = grid.push_messages(to_all(grid)[:1])
        began = time.monotonic()
        assert list(grid.pull_messages([message_id])) == []
        assert time.monotonic() - began < 0.5
        gate.set()
        assert wait_for(grid, [message_id], 1)[0].has_content()
        (again,) = grid.pull_messages([message_id])
        assert again.error.code == 3
        assert again.metadata.reply_to_message_id == message_id


def test_a_late_reply_is_missing_at_the_timeout_and_can_be_pulled_later() -> None:
    gate = threading.Event()

    def late(message: Message, context: Context) -> Message:
        if context.node_config["partner"] == "bea":
            gate.wait(5)
        return echo(message, context)

    with grid_of(late) as grid:
        asked = to_all(grid)
        in_time = list(grid.send_and_receive(asked, timeout=0.3))
        assert sorted(grid.names[m.metadata.src_node_id] for m in in_time) == ["ada", "cem"]
        gate.set()
        (message,) = (m for m in asked if grid.names[m.metadata.dst_node_id] == "bea")
        assert len(wait_for(grid, [message.metadata.message_id], 1)) == 1


def test_an_expired_message_is_not_worked_on_and_not_answered() -> None:
    gate, worked = threading.Event(), []

    def held(message: Message, context: Context) -> Message:
        worked.append(message.metadata.message_id)
        gate.wait(5)
        return echo(message, context)

    with grid_of(held, workers=1) as grid:
        node = grid.get_node_ids()[0]
        ids = grid.push_messages([Message(content(), node, "train", ttl=ttl) for ttl in (60, 0.05)])
        time.sleep(0.1)
        gate.set()
        replies = wait_for(grid, ids, 2)
        assert {reply.metadata.reply_to_message_id: reply.has_error() for reply in replies} == {
            ids[0]: False, ids[1]: True}
        assert worked == ids[:1]


def test_an_unknown_node_gets_no_message() -> None:
    with grid_of(echo) as grid:
        message = Message(content(), 5, "train")
        assert list(grid.push_messages([message])) == [""]
        assert list(grid.send_and_receive([message], timeout=5)) == []
