"""A Flower Grid that runs the clients in this process, without Ray.

The ServerApp and the ClientApp are those of a deployment and cannot tell the difference, but for
one thing: here the clients share a process, so module-level state outlives a message.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Mapping

from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

log = logging.getLogger("veilsum.grid")

_CRASHED = Error(ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding.")
_UNAVAILABLE = Error(
    ErrorCode.MESSAGE_UNAVAILABLE,
    "Error: Message Unavailable - it was answered already, has expired or never existed.",
)


class LocalGrid(Grid):
    """``nodes``: name -> node config. At most ``workers`` clients run at the same time.

    Guarantees, those of a SuperLink with SuperNodes: a node handles one message at a time, in
    the order of pushing; its ``context.state`` persists over the messages of the run; messages,
    replies and states are passed by value; a reply is handed out once. A ClientApp's exception
    becomes an error reply with code 2 and the exception's class and text as reason, no more; a
    client that dies or returns nothing that could be sent, one with code 8. Asking for an
    unknown, expired or already delivered message gives an error reply with code 3.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: Mapping[str, Mapping[str, str | int | float | bool]],
        run_config: UserConfig,
        *,
        workers: int = 2,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._client_app = client_app
        self._workers = workers
        self.names = {_node_id(name): name for name in nodes}
        """Node id -> name. The id depends on the name alone, and has 64 bits as a real one."""
        self._node_configs = {_node_id(name): dict(config) for name, config in nodes.items()}
        self._states = {node: RecordDict() for node in self.names}
        self._run_config = dict(run_config)
        self._changed = threading.Condition()
        self._queue: list[Message] = []
        self._open: dict[str, Metadata] = {}
        """Pushed and not yet delivered."""
        self._busy: set[int] = set()
        self._replies: dict[str, Message] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.set_run(Run.create_empty(secrets.randbits(63)))

    def set_run(self, run: Run) -> None:
        """Make ``run`` the one whose messages this process creates."""
        self._run = run
        TaskIdentity.run_id = run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        TaskIdentity.task_id = SUPERLINK_NODE_ID

    @property
    def run(self) -> Run:
        return Run(**vars(self._run))

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        return list(self.names)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Start the work and return one id per message, empty for an unknown node.

        Raises RuntimeError on a closed grid, and what serialising raises for content that could
        not be sent.
        """
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        if message.metadata.dst_node_id not in self.names:
            log.error("no node %d; the message is dropped", message.metadata.dst_node_id)
            return ""
        message_id = secrets.token_hex(32)
        message.metadata.__dict__["_message_id"] = message_id
        sent = _by_value(message)
        with self._changed:
            if self._closed:
                raise RuntimeError("the grid is closed")
            self._open[message_id] = sent.metadata
            self._queue.append(sent)
            if len(self._threads) < min(self._workers, len(self.names)):
                thread = threading.Thread(target=self._work, name="veilsum-client", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there, without waiting."""
        with self._changed:
            return self._pull(message_ids)

    def _pull(self, message_ids: Iterable[str]) -> list[Message]:
        found = []
        for message_id in dict.fromkeys(message_ids):
            asked = self._open.get(message_id)
            if asked is None or _expired(asked):
                self._open.pop(message_id, None)
                self._replies.pop(message_id, None)
                found.append(_unavailable(message_id, self._run.run_id))
            elif message_id in self._replies:
                del self._open[message_id]
                found.append(self._replies.pop(message_id))
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push, then wait until all replies are in or ``timeout`` seconds have passed."""
        waiting = [message_id for message_id in self.push_messages(messages) if message_id]
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        with self._changed:
            while True:
                arrived = self._pull(waiting)
                replies += arrived
                done = {reply.metadata.reply_to_message_id for reply in arrived}
                waiting = [message_id for message_id in waiting if message_id not in done]
                left = None if deadline is None else deadline - time.monotonic()
                if not waiting or self._closed or (left is not None and left <= 0):
                    return replies
                # Woken by a reply; the second is there to see a message expire.
                self._changed.wait(1.0 if left is None else min(left, 1.0))

    def _work(self) -> None:
        while (message := self._next()) is not None:
            node = message.metadata.dst_node_id
            reply = self._answer(node, message)
            with self._changed:
                self._busy.discard(node)
                if message.metadata.message_id in self._open:
                    self._replies[message.metadata.message_id] = reply
                self._changed.notify_all()
            # Held over the wait for the next message, they would add to the memory of a fold.
            del message, reply

    def _next(self) -> Message | None:
        """Wait for the oldest message whose node is idle; None once the grid is closed."""
        with self._changed:
            while not self._closed:
                self._queue = [waits for waits in self._queue if not _expired(waits.metadata)]
                for position, message in enumerate(self._queue):
                    if message.metadata.dst_node_id not in self._busy:
                        self._busy.add(message.metadata.dst_node_id)
                        return self._queue.pop(position)
                self._changed.wait()
            return None

    def _answer(self, node: int, message: Message) -> Message:
        # A copy, because the app may change the one it gets.
        asked = make_message(copy.copy(message.metadata), RecordDict())
        context = Context(
            run_id=self._run.run_id,
            node_id=node,
            node_config=dict(self._node_configs[node]),
            state=_records_by_value(self._states[node]),
            run_config=dict(self._run_config),
        )
        try:
            reply = self._call(message, context, asked)
            self._states[node] = _records_by_value(context.state)
            reply = _by_value(reply)
            if reply.metadata.reply_to_message_id != asked.metadata.message_id:
                raise ValueError("the ClientApp returned a message that answers no request")
        except BaseException:  # a SystemExit would end a real client's process, not the run
            log.exception("the client of %s crashed", self.names[node])
            reply = Message(_CRASHED, reply_to=asked)
        reply.metadata.__dict__["_message_id"] = secrets.token_hex(32)
        return reply

    def _call(self, message: Message, context: Context, asked: Message) -> Message:
        try:
            return self._client_app(message, context)
        except Exception as error:
            log.exception("the ClientApp of %s raised", self.names[context.node_id])
            reason = f"{type(error)}:<'{error}'>"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=asked)

    def close(self, timeout_s: float = 60.0) -> None:
        """Drop what has not started and wait for the clients that run.

        A running client cannot be stopped: after ``timeout_s`` it is left behind as a daemon
        thread, which the end of the process ends. Closing twice is harmless.
        """
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._threads):
            log.warning("%d clients still run after %g s and are left behind", left, timeout_s)

    def __enter__(self) -> LocalGrid:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def run_server_app(server_app: ServerApp, grid: Grid, run_config: UserConfig) -> Context:
    """Run the ServerApp to its end and return its context; ``context.state`` carries results.
    Raises whatever the ServerApp raises."""
    context = Context(run_id=grid.run.run_id, node_id=SUPERLINK_NODE_ID, node_config={},
                      state=RecordDict(), run_config=dict(run_config))
    server_app(grid, context)
    return context


def _node_id(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _expired(asked: Metadata) -> bool:
    return asked.created_at + asked.ttl < time.time()


def _unavailable(message_id: str, run_id: int) -> Message:
    return make_message(
        Metadata(
            run_id=run_id,
            message_id=secrets.token_hex(32),
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=SUPERLINK_NODE_ID,
            reply_to_message_id=message_id,
            group_id="",
            created_at=time.time(),
            ttl=0,
            message_type=SYSTEM_MESSAGE_TYPE,
        ),
        error=_UNAVAILABLE,
    )


def _by_value(message: Message) -> Message:
    """The message as the other side would get it. Raises TypeError or ValueError for content
    that Flower's wire does not take."""
    envelope = message_to_proto(remove_content_from_message(message)).SerializeToString()
    arrived = message_from_proto(ProtoMessage.FromString(envelope))
    if message.has_content():
        arrived.content = _records_by_value(message.content)
    return arrived


def _records_by_value(content: RecordDict) -> RecordDict:
    """Through Flower's own serialisation, but for the bytes of arrays: they are immutable, and
    100 MB of them would take 0.7 s."""
    small = RecordDict({key: record for key, record in content.items()
                        if not isinstance(record, ArrayRecord)})
    wire = recorddict_to_proto(small).SerializeToString()
    arrived = recorddict_from_proto(ProtoRecordDict.FromString(wire))
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            arrived[key] = ArrayRecord({name: Array(a.dtype, a.shape, a.stype, a.data)
                                        for name, a in record.items()})
    return arrived
