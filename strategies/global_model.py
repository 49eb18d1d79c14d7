"""The model between rounds, as the operator holds it: in the clear, or as bytes it cannot read."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from conf.schema import StrategyConfig
from encryption.types import Refused
from strategies.layout import OpenReply
from strategies.optimiser import ServerState, step

Vector = NDArray[np.float64]
_SEALED = struct.Struct("<IQ")


def model_digest(model: Vector | bytes) -> bytes:
    """SHA-256 that stands for a model, in the clear or as it is sealed: tags and receipts commit to
    it, so that a sum opens only if every partner in it trained from the same."""
    clear = not isinstance(model, bytes)
    state = hashlib.sha256(b"veilsum model 1\0" + bytes([clear]))
    state.update(np.ascontiguousarray(model, "<f8").tobytes() if clear else model)
    return state.digest()


class GlobalModel(Protocol):
    @property
    def round(self) -> int:
        """Rounds that this model has been through."""

    def outgoing(self, kind: str) -> Vector | bytes:
        """What partners work from: to train, or ("test") the final model."""

    @property
    def carried(self) -> bytes:
        """What of it a request carries; revealed, nothing: partners step it themselves."""

    @property
    def state(self) -> bytes:
        """What the opener needs to step."""

    def after(self, reply: OpenReply, mean_update: Vector | None) -> Self:
        """The model after one more round. Raises Refused on a reply that holds no such model."""

    def arrays(self) -> ArrayRecord:
        """The final model as Flower's strategies return it."""

    def packed(self) -> bytes:
        """All that the rounds after this one need, as the operator may keep it."""

    def restored(self, packed: bytes) -> Self:
        """The model that :meth:`packed` these bytes."""


@dataclass(frozen=True)
class RevealedModel:
    """The operator steps a copy, and sees every model: partners step their own and take none from
    it (:mod:`client.model_chain`)."""

    server: ServerState
    config: StrategyConfig

    @property
    def round(self) -> int:
        return self.server.round

    def outgoing(self, kind: str) -> Vector:
        return self.server.model if kind == "train" else self.server.final

    @property
    def carried(self) -> bytes:
        return b""

    @property
    def state(self) -> bytes:
        return b""

    def after(self, reply: OpenReply, mean_update: Vector | None) -> RevealedModel:
        if mean_update is None or reply.model or reply.state:
            raise Refused("the opener kept the update to itself, but the run reveals it")
        if not reply.mac:
            raise Refused("the opener did not vouch for the sum, so no partner would go on from it")
        return RevealedModel(step(self.server, mean_update, self.config), self.config)

    def arrays(self) -> ArrayRecord:
        return ArrayRecord({"model": Array(self.server.final)})

    def packed(self) -> bytes:
        return self.server.packed()

    def restored(self, packed: bytes) -> RevealedModel:
        return RevealedModel(ServerState.unpacked(packed), self.config)


@dataclass(frozen=True)
class SealedModel:
    """The opener steps; the operator keeps and forwards ``model`` and ``state``. Both are empty
    before the first round, because all parties know the public start."""

    round: int = 0
    model: bytes = b""
    state: bytes = b""

    def outgoing(self, kind: str) -> bytes:
        return self.model

    @property
    def carried(self) -> bytes:
        return self.model

    def after(self, reply: OpenReply, mean_update: Vector | None) -> SealedModel:
        if mean_update is not None or reply.mac or not (reply.model and reply.state):
            raise Refused("the opener sent no sealed model")
        return SealedModel(self.round + 1, reply.model, reply.state)

    def arrays(self) -> ArrayRecord:
        data = np.frombuffer(self.model, np.uint8)
        return ArrayRecord({"sealed": Array("uint8", data.shape, "veilsum.sealed", self.model)})

    def packed(self) -> bytes:
        """round (4), length of the model (8), the model, the state. Little-endian."""
        return _SEALED.pack(self.round, len(self.model)) + self.model + self.state

    def restored(self, packed: bytes) -> SealedModel:
        number, length = _SEALED.unpack_from(packed)
        end = _SEALED.size + length
        return SealedModel(number, packed[_SEALED.size : end], packed[end:])
