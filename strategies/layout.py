"""Messages between server and clients: the only home of wire keys (with :mod:`records`).

Every message is a Flower ``RecordDict`` with one ConfigRecord ``"head"`` and, where it carries
arrays or bytes, ArrayRecords ``"body"``, ``"sealed"`` (what key holders alone can read) and
``"receipts"``, bytes in Arrays of at most :data:`records.CHUNK_BYTES`. Parsers accept anything and
raise :class:`encryption.types.Refused` with a reason that holds no data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict

from encryption.types import OpenedSum, OpeningClaim, Refused, RoundId
from strategies.receipts import MAC_BYTES, Receipt, in_order
from strategies.records import (
    BODY,
    INT_STYPE,
    PROTOCOL,
    RECEIPTS,
    SEALED,
    ClientFailed,
    PartnerRefused,
    add_bytes,
    array,
    read_array,
    read_bytes,
    read_content,
    read_count,
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
RECEIPTS_MISSING = "ReceiptsMissing"
"""What a site answers that cannot step to the round's model from what it holds and was sent."""


@dataclass(frozen=True)
class JoinReply:
    """``newest``: the round whose model this site holds, 0 for the public start: later receipts
    are what it lacks."""

    partner: str
    key_id: str
    newest: int = 0


@dataclass(frozen=True)
class TrainRequest:
    """``kind``: "train" or "test". ``model_digest``: of the model that the server takes to be this
    round's (:func:`strategies.global_model.model_digest`); a site compares it with its own and
    believes its own. ``model``: sealed runs: the model, as bytes that key holders alone can read,
    none in the first round, whose start every party knows; nothing in revealed runs, where a site
    steps the model itself, along the ``receipts`` that it lacks."""

    round_id: RoundId
    kind: str
    fingerprint: str
    model_digest: bytes
    model: bytes = b""
    receipts: tuple[Receipt, ...] = ()


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
    """``model_digest`` as in :class:`TrainRequest`. ``state``: sealed: what the round began with,
    nothing in the first round; revealed: nothing, but the ``receipts`` that the opener lacks."""

    claim: OpeningClaim
    kind: str
    fingerprint: str
    blocks: tuple[bytes, ...]
    model_digest: bytes
    state: bytes = b""
    receipts: tuple[Receipt, ...] = ()


@dataclass(frozen=True)
class OpenReply:
    """``opened``: the integers that leave the opener. Sealed: ``model`` and ``state`` for the
    next round, in bytes that the server cannot read. Revealed: ``mac``, the opener's word for a
    round of training, which makes a receipt of what was opened."""

    opened: OpenedSum
    model: bytes = b""
    state: bytes = b""
    mac: bytes = b""


# --- what is written --------------------------------------------------------------------------


def join_request(run: str, fingerprint: str) -> RecordDict:
    return record({"run": run, "fingerprint": fingerprint})


def join_reply(reply: JoinReply) -> RecordDict:
    return record({"partner": reply.partner, "key_id": reply.key_id, "newest": reply.newest})


def train_request(request: TrainRequest) -> RecordDict:
    head = {**round_fields(request.round_id), "kind": request.kind,
            "fingerprint": request.fingerprint, "model_digest": request.model_digest}
    return _add_receipts(add_bytes(record(head), SEALED, [request.model]), request.receipts)


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
    return _add_receipts(add_bytes(content, SEALED, [request.state]), request.receipts)


def open_reply(reply: OpenReply) -> RecordDict:
    content = record(
        {"partners": list(reply.opened.partners), "mac": reply.mac},
        {"values": array(reply.opened.values.astype("<i8"), INT_STYPE)},
    )
    return add_bytes(content, SEALED, [reply.model, reply.state])


def refusal(reason: str) -> RecordDict:
    """What a client answers instead of an exception: one word, never data."""
    return record({"refused": reason})


def _add_receipts(content: RecordDict, receipts: tuple[Receipt, ...]) -> RecordDict:
    return add_bytes(content, RECEIPTS, [receipt.packed() for receipt in receipts])


# --- what is read -----------------------------------------------------------------------------


def parse_join_request(content: RecordDict) -> tuple[str, str]:
    """(run, fingerprint)."""
    head = read_head(content)
    return read_text(head, "run"), read_text(head, "fingerprint")


def parse_join_reply(message: Message) -> JoinReply:
    head = read_head(read_content(message))
    return JoinReply(partner=read_text(head, "partner"), key_id=read_text(head, "key_id"),
                     newest=read_count(head, "newest"))


def parse_train_request(content: RecordDict) -> TrainRequest:
    head = read_head(content)
    return TrainRequest(read_round(head), read_text(head, "kind"),
                        read_text(head, "fingerprint"), read_digest(head, "model_digest"),
                        _one(read_bytes(content, SEALED)), _receipts(content))


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
                       _one(read_bytes(content, SEALED)), _receipts(content))


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
    mac = head.get("mac")
    if not isinstance(mac, bytes) or len(mac) not in (0, MAC_BYTES):
        raise Refused(f"the message's mac is not {MAC_BYTES} bytes")
    opened = OpenedSum(values.astype(np.int64), read_indexes(head, "partners"))
    return OpenReply(opened, *parts, mac)


def _receipts(content: RecordDict) -> tuple[Receipt, ...]:
    return in_order(map(Receipt.unpacked, read_bytes(content, RECEIPTS, least=0)))


def _one(parts: tuple[bytes, ...]) -> bytes:
    if len(parts) != 1:
        raise Refused("the message's sealed bytes are not one piece")
    return parts[0]
