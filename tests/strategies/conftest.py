"""Nodes that come, go and fall silent, as those of a deployment do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import pytest
from flwr.app import Context, Error, Message

from experiments.local_grid import LocalGrid
from strategies import layout
from strategies.records import record


def _client(message: Message, context: Context) -> Message:
    site = context.node_config
    if message.metadata.message_type == layout.TRAIN:
        content = (layout.refusal("SiteError") if "refuses" in site
                   else record({"partner": str(site["partner"])}))
    elif "lost" in site:
        content = layout.refusal("SiteError")
    else:
        content = layout.join_reply(layout.JoinReply(str(site["partner"]), str(site["key"])))
    return Message(content, reply_to=message)


class Switchboard(LocalGrid):
    """A grid of made-up clients. ``nodes``: name -> node config with "partner", "key" and perhaps
    "refuses" (to train) or "lost" (refuses to join). Those in ``gone`` are not connected, those in
    ``silent`` work for ever, and those in ``crashing`` end without an answer. ``heard`` counts what
    each was asked."""

    def __init__(self, **nodes: dict[str, str]) -> None:
        super().__init__(_client, {name: {"partner": name, "key": "k"} | site  # type: ignore[arg-type]
                                   for name, site in nodes.items()}, {})
        self.gone: set[str] = set()
        self.silent: set[str] = set()
        self.crashing: set[str] = set()
        self.heard: Counter[tuple[str, str]] = Counter()
        self.on_push: Callable[[str, str], None] = lambda name, kind: None
        self._pushed: dict[str, Message] = {}

    def node(self, name: str) -> int:
        return next(node for node, one in self.names.items() if one == name)

    def get_node_ids(self) -> list[int]:
        return [node for node, name in self.names.items() if name not in self.gone]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = super().push_messages(messages := list(messages))
        for message_id, message in zip(ids, messages, strict=True):
            self._pushed[message_id] = message
            name = self.names[message.metadata.dst_node_id]
            self.heard[name, message.metadata.message_type] += 1
            self.on_push(name, message.metadata.message_type)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        out: list[Message] = []
        for message_id in message_ids:
            asked = self._pushed[message_id]
            name = self.names[asked.metadata.dst_node_id]
            joining = asked.metadata.message_type == layout.JOIN
            if name in self.gone:
                out.append(Message(Error(5, "a path of the site"), reply_to=asked))
            elif name in self.crashing and not joining:
                out.append(Message(Error(8, "a path of the site"), reply_to=asked))
            elif name not in self.silent:
                out += super().pull_messages([message_id])
        return out


@pytest.fixture
def switchboard() -> Iterator[Callable[..., Switchboard]]:
    """switchboard(north={}, ...) -> a running :class:`Switchboard`."""
    with ExitStack() as stack:
        yield lambda **nodes: stack.enter_context(Switchboard(**nodes))
