"""A grid between server and clients that misbehaves on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run


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
            out += self._fault(message) if message.metadata.message_type == "train" else [message]
        return out

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._inner.send_and_receive(messages, timeout=timeout)
