"""Ask nodes and take each answer as it arrives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

_FIRST_POLL_S, _SLOWEST_POLL_S = 0.002, 1.0


def ask(contents: Mapping[int, RecordDict], message_type: str, group: str) -> list[Message]:
    """One message per node id."""
    return [
        Message(content, node, message_type, group_id=group) for node, content in contents.items()
    ]


def stream(
    grid: Grid, messages: Iterable[Message], timeout_s: float
) -> Iterator[tuple[int, Message]]:
    """Yield (the node that was asked, its reply) in the order of arrival, until all are in or
    ``timeout_s`` has passed. The sender that a reply names is not trusted: for errors that the
    SuperLink makes itself it is not the node.

    Flower's ``send_and_receive`` holds every reply at once; this holds one, so that the memory
    of a fold does not grow with the cohort. The pause between polls starts small (a local
    federation answers in milliseconds) and grows with the wait.
    """
    asked = list(messages)
    waiting = dict(zip(grid.push_messages(asked), (m.metadata.dst_node_id for m in asked),
                       strict=True))
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_POLL_S
    while waiting and time.monotonic() < deadline:
        progressed = False
        for message_id, node in tuple(waiting.items()):
            for reply in grid.pull_messages([message_id]):
                progressed = True
                waiting.pop(message_id, None)
                yield node, reply
        pause = _FIRST_POLL_S if progressed else min(pause * 1.5, _SLOWEST_POLL_S)
        if waiting and not progressed:
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
