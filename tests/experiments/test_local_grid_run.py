"""How the local grid runs clients and ends, and the ServerApp on top of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from experiments.local_grid import LocalGrid, run_server_app

NODES = {name: {"partner": name} for name in ("ada", "bea", "cem")}


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


@contextmanager
def grid_of(
    answer: Callable[[Message, Context], Message], workers: int = 3
) -> Iterator[LocalGrid]:
    app = ClientApp()
    app.train()(answer)
    with LocalGrid(app, NODES, {}, workers=workers) as grid:
        yield grid


def content(x: float = 1.0) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"x": x})})


def to_all(grid: Grid) -> list[Message]:
    return [Message(content(), node, "train") for node in grid.get_node_ids()]


def test_nodes_run_side_by_side_up_to_the_number_of_workers() -> None:
    together = threading.Barrier(2)
    running, most, lock = 0, 0, threading.Lock()

    def meet(message: Message, context: Context) -> Message:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if context.node_config["partner"] != "cem":
            together.wait(5)
        with lock:
            running -= 1
        return echo(message, context)

    with grid_of(meet, workers=2) as grid:
        assert all(r.has_content() for r in grid.send_and_receive(to_all(grid), timeout=5))
    assert most == 2


def test_one_node_handles_one_message_at_a_time_in_order() -> None:
    spans: list[tuple[float, float]] = []
    order: list[float] = []

    def slow(message: Message, context: Context) -> Message:
        began = time.monotonic()
        time.sleep(0.02)
        spans.append((began, time.monotonic()))
        order.append(message.content["metrics"]["x"])
        return echo(message, context)

    with grid_of(slow) as grid:
        node = grid.get_node_ids()[0]
        list(grid.send_and_receive(
            [Message(content(x=float(i)), node, "train") for i in range(4)], timeout=5))
    assert order == [0, 1, 2, 3]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_closing_drops_what_waits_finishes_what_runs_and_leaves_no_thread() -> None:
    started, gate, worked = threading.Event(), threading.Event(), []

    def held(message: Message, context: Context) -> Message:
        started.set()
        gate.wait(5)
        worked.append(context.node_config["partner"])
        return echo(message, context)

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), grid_of(held, workers=1) as grid:
        grid.push_messages(to_all(grid))
        started.wait(5)
        gate.set()
        raise KeyboardInterrupt
    assert worked == ["ada"]
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="closed"):
        grid.push_messages(to_all(grid))
    grid.close()


def test_closing_gives_up_on_a_client_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    started, gate = threading.Event(), threading.Event()

    def hang(message: Message, context: Context) -> Message:
        started.set()
        gate.wait(20)
        return echo(message, context)

    with grid_of(hang) as grid:
        grid.push_messages(to_all(grid)[:1])
        started.wait(5)
        grid.close(timeout_s=0.05)
        assert "1 clients still run" in caplog.text
        gate.set()


def test_node_ids_follow_from_the_names() -> None:
    with grid_of(echo) as one, grid_of(echo) as other:
        assert one.get_node_ids() == other.get_node_ids()
        assert [node.node_id for node in one.get_nodes()] == one.get_node_ids()
        assert one.run.run_id != other.run.run_id


def test_the_server_app_gets_the_grid_and_the_config_and_leaves_its_result() -> None:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        answered = len(list(grid.send_and_receive(to_all(grid), timeout=5)))
        context.state["result"] = ConfigRecord(
            {"answered": answered, "config": context.run_config["config"]})

    with grid_of(echo) as grid:
        context = run_server_app(app, grid, {"config": "{}"})
    assert dict(context.state["result"]) == {"answered": 3, "config": "{}"}
    assert context.run_id == grid.run.run_id


def test_an_error_of_the_server_app_reaches_the_caller() -> None:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        raise LookupError("no quorum")

    with grid_of(echo) as grid, pytest.raises(LookupError, match="no quorum"):
        run_server_app(app, grid, {})


def test_at_least_one_worker() -> None:
    with pytest.raises(ValueError, match="workers"):
        LocalGrid(ClientApp(), NODES, {}, workers=0)
