"""Messages between server and clients: the only home of wire keys (with :mod:`records`).

Every message is a Flower ``RecordDict`` with one ConfigRecord ``"head"`` and, where it carries
arrays or bytes, ArrayRecords ``"body"`` and ``"sealed"`` (what key holders alone can read), bytes
in Arrays of at most :data:`records.CHUNK_BYTES`. Parsers accept anything and raise
:class:`encryption.types.Refused` with a reason that holds no data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId
from strategies.records import (
    BODY,
    FLOAT_STYPE,
    INT_STYPE,
    PROTOCOL,
    SEALED,
    ClientFailed,
    PartnerRefused,
    add_bytes,
    array,
    read_array,
    read_bytes,
    read_content,
    read_digest,
    read_head,
    read_indexes,
    read_round,
    read_seconds,
    read_text,
    record,
    round_fields,
)

__all__ = ["JOIN", "OPEN", "PROTOCOL", "TRAIN", "ClientFailed", "PartnerRefused"]

JOIN, TRAIN, OPEN = "query.join", "train", "query.open"


@dataclass(frozen=True)
class JoinReply:
    partner: str
    key_id: str


@dataclass(frozen=True)
class TrainRequest:
    """``model``: the current global model, (d,) float64; or sealed, as bytes that key holders
    alone can read, none in the first round, whose start every party knows. ``kind``: "train" or
    "test"."""

    round_id: RoundId
    kind: str
    fingerprint: str
    model: NDArray[np.float64] | bytes


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
    """``model_digest``: of the model that the server sent out in this round
    (:func:`strategies.global_model.model_digest`). ``state``: sealed: what the round began with,
    nothing in the first round; revealed: nothing."""

    claim: OpeningClaim
    kind: str
    fingerprint: str
    blocks: tuple[bytes, ...]
    model_digest: bytes
    state: bytes = b""


@dataclass(frozen=True)
class OpenReply:
    """``opened``: the integers that leave the opener. Sealed: ``model`` and ``state`` for the
    next round, in bytes that the server cannot read."""

    opened: OpenedSum
    model: bytes = b""
    state: bytes = b""


# --- what is written --------------------------------------------------------------------------


def join_request(run: str, fingerprint: str) -> RecordDict:
    return record({"run": run, "fingerprint": fingerprint})


def join_reply(reply: JoinReply) -> RecordDict:
    return record({"partner": reply.partner, "key_id": reply.key_id})


def train_request(request: TrainRequest) -> RecordDict:
    head = {**round_fields(request.round_id), "kind": request.kind,
            "fingerprint": request.fingerprint, "sealed": isinstance(request.model, bytes)}
    if isinstance(request.model, bytes):
        return add_bytes(record(head), SEALED, [request.model])
    return record(head, {"model": array(request.model.astype("<f8"), FLOAT_STYPE)})


def train_reply(reply: TrainReply) -> RecordDict:
    head = {
        **round_fields(reply.round_id),
        "partner": reply.partner,
        "fingerprint": reply.fingerprint,
        "train_s": reply.train_s,
        "encrypt_s": reply.encrypt_s,
    }
    return add_bytes(record(head), BODY, reply.blocks)


def open_request(request: OpenRequest) -> RecordDict:
    head = {
        **round_fields(request.claim.round_id),
        "kind": request.kind,
        "fingerprint": request.fingerprint,
        "partners": list(request.claim.partners),
        "digest": request.claim.digest,
        "model_digest": request.model_digest,
    }
    content = add_bytes(record(head), BODY, request.blocks)
    return add_bytes(content, SEALED, [request.state])


def open_reply(reply: OpenReply) -> RecordDict:
    content = record(
        {"partners": list(reply.opened.partners)},
        {"values": array(reply.opened.values.astype("<i8"), INT_STYPE)},
    )
    return add_bytes(content, SEALED, [reply.model, reply.state])


def refusal(reason: str) -> RecordDict:
    """What a client answers instead of an exception: one word, never data."""
    return record({"refused": reason})


# --- what is read -----------------------------------------------------------------------------


def parse_join_request(content: RecordDict) -> tuple[str, str]:
    """(run, fingerprint)."""
    head = read_head(content)
    return read_text(head, "run"), read_text(head, "fingerprint")


def parse_join_reply(message: Message) -> JoinReply:
    head = read_head(read_content(message))
    return JoinReply(partner=read_text(head, "partner"), key_id=read_text(head, "key_id"))


def parse_train_request(content: RecordDict) -> TrainRequest:
    head = read_head(content)
    model: NDArray[np.float64] | bytes
    if head.get("sealed") is True:
        model = _one(read_bytes(content, SEALED))
    else:
        model = read_array(content, "model", FLOAT_STYPE, "<f8").astype(np.float64)
    return TrainRequest(read_round(head), read_text(head, "kind"),
                        read_text(head, "fingerprint"), model)


def parse_train_reply(message: Message) -> TrainReply:
    content = read_content(message)
    head = read_head(content)
    return TrainReply(
        round_id=read_round(head),
        partner=read_text(head, "partner"),
        fingerprint=read_text(head, "fingerprint"),
        blocks=read_bytes(content, BODY),
        train_s=read_seconds(head, "train_s"),
        encrypt_s=read_seconds(head, "encrypt_s"),
    )


def parse_open_request(content: RecordDict) -> OpenRequest:
    head = read_head(content)
    claim = OpeningClaim(read_round(head), read_indexes(head, "partners"),
                         read_digest(head, "digest"))
    return OpenRequest(claim, read_text(head, "kind"), read_text(head, "fingerprint"),
                       read_bytes(content, BODY), read_digest(head, "model_digest"),
                       _one(read_bytes(content, SEALED)))


def parse_open_reply(message: Message, size: int) -> OpenReply:
    """Read exactly ``size`` opened integers."""
    content = read_content(message)
    head = read_head(content)
    values = read_array(content, "values", INT_STYPE, "<i8")
    if values.shape != (size,):
        raise Refused("the opened sum has another length")
    parts = read_bytes(content, SEALED)
    if len(parts) != 2:
        raise Refused("the message does not hold a model and a state")
    return OpenReply(OpenedSum(values.astype(np.int64), read_indexes(head, "partners")), *parts)


def _one(parts: tuple[bytes, ...]) -> bytes:
    if len(parts) != 1:
        raise Refused("the message's sealed bytes are not one piece")
    return parts[0]
