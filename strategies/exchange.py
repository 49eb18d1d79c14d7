"""Push messages to nodes and take each answer as it arrives."""

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


class Mail:
    """Messages under way.

    Flower's ``send_and_receive`` holds every reply at once; this holds one, so that the memory
    of a fold does not grow with the cohort.
    """

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    @property
    def nodes(self) -> set[int]:
        """Those that have not answered."""
        return set(self._asked.values())

    def push(self, grid: Grid, messages: Iterable[Message]) -> None:
        """Send. Flower gives no id for a message to a node that it does not know any more."""
        asked = list(messages)
        if asked:
            self._asked |= {message_id: message.metadata.dst_node_id for message_id, message
                            in zip(grid.push_messages(asked), asked, strict=True) if message_id}

    def pull(self, grid: Grid) -> Iterator[tuple[int, Message]]:
        """Yield (the node that was asked, its reply) for what has arrived, without waiting. The
        sender that a reply names is not trusted: for errors that the SuperLink makes itself it is
        not the node."""
        for message_id, node in tuple(self._asked.items()):
            for reply in grid.pull_messages([message_id]):
                self._asked.pop(message_id, None)
                yield node, reply


class Patience:
    """The time that there is to wait. The pause between polls starts small (a local federation
    answers in milliseconds) and grows with the wait."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline, self._pause = time.monotonic() + timeout_s, _FIRST_POLL_S

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def rest(self, progressed: bool) -> None:
        """Sleep until the next poll, not at all where the last one brought something."""
        self._pause = _FIRST_POLL_S if progressed else min(self._pause * 1.5, _SLOWEST_POLL_S)
        if not progressed:
            time.sleep(min(self._pause, self.left_s))
