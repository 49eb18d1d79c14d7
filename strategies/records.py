"""The pieces that messages are made of: a head of plain values, and bytes in Arrays.

Readers accept anything and raise :class:`encryption.types.Refused` with a reason that holds no
data. No length that a message states is believed before it is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from encryption.types import Refused, RoundId
from strategies.receipts import MAX_ROUND

PROTOCOL = 3
CHUNK_BYTES = 5_000_000
"""Flower handles about this much an Array best."""
MAX_BLOCKS = 100_000
INT_STYPE = "veilsum.i8"
HEAD, BODY, SEALED, RECEIPTS = "head", "body", "sealed", "receipts"
_BYTES_STYPE = "veilsum.blocks"


class PartnerRefused(Refused):
    """A partner answered that it will not take part; ``reason`` is one word of its own."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the partner refused: {reason}")
        self.reason = reason


_FAILURES = {
    1: "its client could not load the app; are its version and packages those of this run?",
    2: "its client app raised an error; the log of that site has it",
    3: "the message expired, or its node was taken out of the federation",
    4: "its answer expired before it was fetched",
    5: "its node no longer answers: the SuperNode ended or lost its connection",
    6: "a Flower mod of its client refused the message",
    7: "its SuperNode could not verify the app",
    8: "its client process ended without an answer; was it killed, or out of memory?",
}
_PASSING = {0, 3, 4, 5, 8}


class ClientFailed(Refused):
    """Flower brought an error instead of an answer. ``passing``: the same node, or the partner's
    next one, may well answer if asked again. The error's text is not repeated: it may hold what a
    client raised."""

    def __init__(self, code: int) -> None:
        words = _FAILURES.get(code, "its client failed")
        super().__init__(f"{words} (Flower error {code})")
        self.passing = code in _PASSING


# --- what is written --------------------------------------------------------------------------


def record(head: dict[str, Any], body: dict[str, Array] | None = None) -> RecordDict:
    records: dict[str, Any] = {HEAD: ConfigRecord({"protocol": PROTOCOL, **head})}
    if body is not None:
        records[BODY] = ArrayRecord(body)
    return RecordDict(records)


def add_bytes(content: RecordDict, name: str, parts: Sequence[bytes]) -> RecordDict:
    """``content`` with ``parts`` in Arrays of a record ``name``, their lengths in the head."""
    joined = b"".join(parts)
    pieces = [joined[i : i + CHUNK_BYTES] for i in range(0, len(joined), CHUNK_BYTES)]
    content[HEAD][f"{name}_lengths"] = [len(part) for part in parts]
    content[name] = ArrayRecord({f"{i:06d}": Array("uint8", (len(piece),), _BYTES_STYPE, piece)
                                 for i, piece in enumerate(pieces)})
    return content


def round_fields(round_id: RoundId) -> dict[str, Any]:
    return {"run": round_id.run, "round": round_id.round}


def array(values: NDArray[Any], stype: str) -> Array:
    return Array(values.dtype.str, values.shape, stype, values.tobytes())


# --- what is read -----------------------------------------------------------------------------


def read_content(message: Message) -> RecordDict:
    if message.has_error():
        raise ClientFailed(int(message.error.code))
    return message.content


def read_head(content: RecordDict) -> ConfigRecord:
    head = content.get(HEAD)
    if not isinstance(head, ConfigRecord):
        raise Refused("the message has no head")
    if head.get("protocol") != PROTOCOL:
        raise Refused(f"the message speaks another protocol than {PROTOCOL}")
    if "refused" in head:
        reason = head["refused"]
        word = isinstance(reason, str) and len(reason) < 60 and reason.isidentifier()
        raise PartnerRefused(str(reason) if word else "Unknown")
    return head


def read_text(head: ConfigRecord, key: str) -> str:
    value = head.get(key)
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise Refused(f"the message's {key} is not a short text")
    return value


def read_digest(head: ConfigRecord, key: str) -> bytes:
    value = head.get(key)
    if not isinstance(value, bytes) or len(value) != 32:
        raise Refused(f"the message's {key} is not 32 bytes")
    return value


def read_count(head: ConfigRecord, key: str) -> int:
    value = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ROUND:
        raise Refused(f"the message's {key} is not a number of rounds")
    return value


def read_seconds(head: ConfigRecord, key: str) -> float:
    value = head.get(key)
    if not isinstance(value, float) or not 0 <= value < 1e6:
        raise Refused(f"the message's {key} is not a duration")
    return value


def read_round(head: ConfigRecord) -> RoundId:
    number = head.get("round")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= MAX_ROUND:
        raise Refused("the message's round is not a number")
    return RoundId(read_text(head, "run"), number)


def read_indexes(head: ConfigRecord, key: str) -> tuple[int, ...]:
    value = head.get(key)
    if not isinstance(value, list) or len(value) > 100_000:
        raise Refused(f"the message's {key} is not a list")
    if any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in value):
        raise Refused(f"the message's {key} holds something else than indexes")
    if any(a >= b for a, b in pairwise(value)):
        raise Refused(f"the message's {key} is not ascending")
    return tuple(value)


def read_array(content: RecordDict, name: str, stype: str, dtype: str) -> NDArray[Any]:
    found = _arrays(content, BODY).get(name)
    if found is None or found.stype != stype or len(found.shape) != 1:
        raise Refused(f"the message's {name} is missing or of another kind")
    if len(found.data) != found.shape[0] * np.dtype(dtype).itemsize:
        raise Refused(f"the message's {name} has another length than it says")
    return np.frombuffer(found.data, dtype)


def read_bytes(content: RecordDict, name: str, least: int = 1) -> tuple[bytes, ...]:
    """What :func:`add_bytes` put under ``name``: so many parts at least."""
    lengths = read_head(content).get(f"{name}_lengths")
    if not isinstance(lengths, list) or not least <= len(lengths) <= MAX_BLOCKS:
        raise Refused("the message's lengths are missing or too many")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in lengths):
        raise Refused("the message's lengths are not numbers")
    arrays = _arrays(content, name)
    if any(array.stype != _BYTES_STYPE for array in arrays.values()):
        raise Refused("the message's blocks are of another kind")
    joined = b"".join(arrays[key].data for key in sorted(arrays))
    if sum(lengths) != len(joined):
        raise Refused("the message's blocks have another length than it says")
    ends = np.cumsum(lengths).tolist()
    return tuple(joined[end - n : end] for end, n in zip(ends, lengths, strict=True))


def _arrays(content: RecordDict, name: str) -> ArrayRecord:
    found = content.get(name)
    if not isinstance(found, ArrayRecord):
        raise Refused(f"the message has no {name}")
    return found
