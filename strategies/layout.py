"""Messages between server and clients: the only home of wire keys.

Every message is a Flower ``RecordDict`` with one ConfigRecord ``"head"`` and, where it carries
bytes, one ArrayRecord ``"body"`` of Arrays of at most :data:`CHUNK_BYTES` (Flower handles about
5 MB an Array best). Parsers accept anything and raise :class:`encryption.types.Refused` with a
reason that holds no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId

PROTOCOL = 1
JOIN, TRAIN, OPEN = "query.join", "train", "query.open"
CHUNK_BYTES = 5_000_000
MAX_BLOCKS = 100_000
_HEAD, _BODY = "head", "body"
_BLOCKS_STYPE, _FLOAT_STYPE, _INT_STYPE = "veilsum.blocks", "veilsum.f8", "veilsum.i8"


@dataclass(frozen=True)
class JoinReply:
    partner: str
    key_id: str


@dataclass(frozen=True)
class TrainRequest:
    """``model``: (d,) float64, the current global model. ``kind``: "train" or "test"."""

    round_id: RoundId
    kind: str
    fingerprint: str
    model: NDArray[np.float64]


@dataclass(frozen=True)
class TrainReply:
    """One partner's encrypted contribution. Durations are what the server could time itself."""

    round_id: RoundId
    partner: str
    fingerprint: str
    blocks: tuple[bytes, ...]
    train_s: float
    encrypt_s: float


@dataclass(frozen=True)
class OpenRequest:
    claim: OpeningClaim
    kind: str
    fingerprint: str
    blocks: tuple[bytes, ...]


class PartnerRefused(Refused):
    """A partner answered that it will not take part; ``reason`` is one word of its own."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the partner refused: {reason}")
        self.reason = reason


# --- what is written --------------------------------------------------------------------------


def join_request(run: str, fingerprint: str) -> RecordDict:
    return _record({"protocol": PROTOCOL, "run": run, "fingerprint": fingerprint})


def join_reply(reply: JoinReply) -> RecordDict:
    return _record({"protocol": PROTOCOL, "partner": reply.partner, "key_id": reply.key_id})


def train_request(request: TrainRequest) -> RecordDict:
    return _record(
        {**_round(request.round_id), "kind": request.kind, "fingerprint": request.fingerprint},
        {"model": _array(request.model.astype("<f8"), _FLOAT_STYPE)},
    )


def train_reply(reply: TrainReply) -> RecordDict:
    head = {
        **_round(reply.round_id),
        "partner": reply.partner,
        "fingerprint": reply.fingerprint,
        "lengths": [len(block) for block in reply.blocks],
        "train_s": reply.train_s,
        "encrypt_s": reply.encrypt_s,
    }
    return _record(head, _chunks(reply.blocks))


def open_request(request: OpenRequest) -> RecordDict:
    head = {
        **_round(request.claim.round_id),
        "kind": request.kind,
        "fingerprint": request.fingerprint,
        "partners": list(request.claim.partners),
        "digest": request.claim.digest,
        "lengths": [len(block) for block in request.blocks],
    }
    return _record(head, _chunks(request.blocks))


def open_reply(opened: OpenedSum) -> RecordDict:
    return _record(
        {"protocol": PROTOCOL, "partners": list(opened.partners)},
        {"values": _array(opened.values.astype("<i8"), _INT_STYPE)},
    )


def refusal(reason: str) -> RecordDict:
    """What a client answers instead of an exception: one word, never data."""
    return _record({"protocol": PROTOCOL, "refused": reason})


# --- what is read -----------------------------------------------------------------------------


def parse_join_request(content: RecordDict) -> tuple[str, str]:
    """(run, fingerprint)."""
    head = _head(content)
    return _text(head, "run"), _text(head, "fingerprint")


def parse_join_reply(message: Message) -> JoinReply:
    head = _head(_content(message))
    return JoinReply(partner=_text(head, "partner"), key_id=_text(head, "key_id"))


def parse_train_request(content: RecordDict) -> TrainRequest:
    head = _head(content)
    return TrainRequest(
        round_id=_parse_round(head),
        kind=_text(head, "kind"),
        fingerprint=_text(head, "fingerprint"),
        model=_parse_array(content, "model", _FLOAT_STYPE, "<f8").astype(np.float64),
    )


def parse_train_reply(message: Message) -> TrainReply:
    content = _content(message)
    head = _head(content)
    return TrainReply(
        round_id=_parse_round(head),
        partner=_text(head, "partner"),
        fingerprint=_text(head, "fingerprint"),
        blocks=_parse_chunks(content, head),
        train_s=_seconds(head, "train_s"),
        encrypt_s=_seconds(head, "encrypt_s"),
    )


def parse_open_request(content: RecordDict) -> OpenRequest:
    head = _head(content)
    digest = head.get("digest")
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise Refused("the digest is not 32 bytes")
    claim = OpeningClaim(_parse_round(head), _indexes(head, "partners"), digest)
    return OpenRequest(claim, _text(head, "kind"), _text(head, "fingerprint"),
                       _parse_chunks(content, head))


def parse_open_reply(message: Message, size: int) -> OpenedSum:
    """Read exactly ``size`` opened integers."""
    content = _content(message)
    head = _head(content)
    values = _parse_array(content, "values", _INT_STYPE, "<i8")
    if values.shape != (size,):
        raise Refused("the opened sum has another length")
    return OpenedSum(values.astype(np.int64), _indexes(head, "partners"))


# --- pieces -----------------------------------------------------------------------------------


def _record(head: dict[str, Any], body: dict[str, Array] | None = None) -> RecordDict:
    records: dict[str, Any] = {_HEAD: ConfigRecord({"protocol": PROTOCOL, **head})}
    if body is not None:
        records[_BODY] = ArrayRecord(body)
    return RecordDict(records)


def _round(round_id: RoundId) -> dict[str, Any]:
    return {"run": round_id.run, "round": round_id.round}


def _array(values: NDArray[Any], stype: str) -> Array:
    return Array(values.dtype.str, values.shape, stype, values.tobytes())


def _chunks(blocks: Sequence[bytes]) -> dict[str, Array]:
    joined = b"".join(blocks)
    parts = [joined[i : i + CHUNK_BYTES] for i in range(0, len(joined), CHUNK_BYTES)]
    return {
        f"{i:06d}": Array("uint8", (len(part),), _BLOCKS_STYPE, part)
        for i, part in enumerate(parts)
    }


def _content(message: Message) -> RecordDict:
    if message.has_error():
        raise Refused(f"the client failed (Flower error {int(message.error.code)})")
    return message.content


def _head(content: RecordDict) -> ConfigRecord:
    head = content.get(_HEAD)
    if not isinstance(head, ConfigRecord):
        raise Refused("the message has no head")
    if head.get("protocol") != PROTOCOL:
        raise Refused(f"the message speaks another protocol than {PROTOCOL}")
    if "refused" in head:
        reason = head["refused"]
        word = isinstance(reason, str) and len(reason) < 60 and reason.isidentifier()
        raise PartnerRefused(str(reason) if word else "Unknown")
    return head


def _text(head: ConfigRecord, key: str) -> str:
    value = head.get(key)
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise Refused(f"the message's {key} is not a short text")
    return value


def _seconds(head: ConfigRecord, key: str) -> float:
    value = head.get(key)
    if not isinstance(value, float) or not 0 <= value < 1e6:
        raise Refused(f"the message's {key} is not a duration")
    return value


def _parse_round(head: ConfigRecord) -> RoundId:
    number = head.get("round")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= 1_000_000:
        raise Refused("the message's round is not a number")
    return RoundId(_text(head, "run"), number)


def _indexes(head: ConfigRecord, key: str) -> tuple[int, ...]:
    value = head.get(key)
    if not isinstance(value, list) or len(value) > 100_000:
        raise Refused(f"the message's {key} is not a list")
    if any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in value):
        raise Refused(f"the message's {key} holds something else than indexes")
    if any(a >= b for a, b in pairwise(value)):
        raise Refused(f"the message's {key} is not ascending")
    return tuple(value)


def _body(content: RecordDict) -> ArrayRecord:
    body = content.get(_BODY)
    if not isinstance(body, ArrayRecord):
        raise Refused("the message has no body")
    return body


def _parse_array(content: RecordDict, name: str, stype: str, dtype: str) -> NDArray[Any]:
    array = _body(content).get(name)
    if array is None or array.stype != stype or len(array.shape) != 1:
        raise Refused(f"the message's {name} is missing or of another kind")
    if len(array.data) != array.shape[0] * np.dtype(dtype).itemsize:
        raise Refused(f"the message's {name} has another length than it says")
    return np.frombuffer(array.data, dtype)


def _parse_chunks(content: RecordDict, head: ConfigRecord) -> tuple[bytes, ...]:
    lengths = head.get("lengths")
    if not isinstance(lengths, list) or not 0 < len(lengths) <= MAX_BLOCKS:
        raise Refused("the message's lengths are missing or too many")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in lengths):
        raise Refused("the message's lengths are not numbers")
    body = _body(content)
    if any(array.stype != _BLOCKS_STYPE for array in body.values()):
        raise Refused("the message's blocks are of another kind")
    joined = b"".join(body[name].data for name in sorted(body))
    if sum(lengths) != len(joined):
        raise Refused("the message's blocks have another length than it says")
    ends = np.cumsum(lengths).tolist()
    return tuple(joined[end - n : end] for end, n in zip(ends, lengths, strict=True))
