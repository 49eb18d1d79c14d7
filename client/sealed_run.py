"""Sealed models of one run, at a key holder: what partners read, and what the opener writes.

Content of a sealed model: length of the description (4, little-endian), the description (JSON, so
that an export needs nothing else), the parameters as float32, which is what training uses. Content
of a sealed state: :meth:`strategies.optimiser.ServerState.packed`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from conf.schema import Config
from encryption.types import OpenedSum, Refused
from keyholder.keys import SharedKey
from keyholder.vault import Kind, Vault, run_hash
from learning.registry import make_model, make_task, shared_start
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.layout import OpenReply, OpenRequest
from strategies.optimiser import ServerState, step

Vector = NDArray[np.float64]
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class SealedRun:
    """``vault`` is bound to the run, whose name commits to ``config``."""

    config: Config
    agreement: Agreement
    vault: Vault

    @classmethod
    def of(cls, config: Config, agreement: Agreement, key: SharedKey, run: str) -> SealedRun:
        return cls(config, agreement, Vault(key, run_hash(run)))

    def model(self, number: int, sealed: bytes) -> Vector:
        """The model (d,) that round ``number`` begins with. Raises SealBroken: for an older one
        too, so that nobody trains a second time from a model that the run has left behind."""
        if number == 1:
            return self._start(sealed).model
        return unpack_model(self.vault.open(Kind.MODEL, number, sealed)[1]).vector

    def state(self, request: OpenRequest) -> ServerState:
        """What the opener steps from. Raises Refused unless it is this run's and round's, and
        belongs to the model that the request says the partners were sent."""
        number = request.claim.round_id.round
        if number == 1:
            if request.model_digest != model_digest(b""):
                raise Refused("the first round begins with the public start")
            return self._start(request.state)
        header, content = self.vault.open(Kind.STATE, number, request.state)
        if header.link != request.model_digest:
            raise Refused("the state belongs to another model than the partners were sent")
        return ServerState.unpacked(content)

    def answer(self, request: OpenRequest, opened: OpenedSum, state: ServerState) -> OpenReply:
        """What leaves the opener: the metrics' integers, and the next model and state, sealed."""
        left = OpenedSum(self.agreement.leaving(request.kind, opened.values), opened.partners)
        if request.kind != "train":
            return OpenReply(left)
        moved = step(state, self.agreement.mean_update(opened), self.config.strategy)
        last = moved.round == self.config.strategy.rounds
        content = pack_model(_description(self.config), moved.final if last else moved.model)
        number = moved.round + 1
        model = self.vault.seal(Kind.MODEL, number, request.claim.digest, content)
        return OpenReply(left, model, self.vault.seal(
            Kind.STATE, number, model_digest(model), moved.packed()))

    def _start(self, sealed: bytes) -> ServerState:
        if sealed:
            raise Refused("the first round begins with the public start")
        return ServerState.start(shared_start(self.config))


@dataclass(frozen=True)
class ModelContent:
    """A sealed model, opened. description: task, model, input shape, seed of the public start,
    parameters' names and shapes, rounds planned. vector: (d - k,), without any head."""

    description: Mapping[str, object]
    vector: Vector


def pack_model(description: Mapping[str, object], vector: Vector) -> bytes:
    text = json.dumps(description, separators=(",", ":")).encode()
    with np.errstate(over="ignore"):  # a model that diverged: who reads it refuses it
        narrow = vector.astype("<f4")
    return _LENGTH.pack(len(text)) + text + narrow.tobytes()


def unpack_model(content: bytes) -> ModelContent:
    """Inverse of :func:`pack_model`, for bytes that a key holder wrote."""
    (length,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + length
    vector = np.frombuffer(content, "<f4", offset=start).astype(np.float64)
    return ModelContent(json.loads(content[_LENGTH.size : start]), vector)


def _description(config: Config) -> dict[str, object]:
    parameters = make_model(config).named_parameters()
    return {
        "task": config.task.name,
        "model": asdict(config.model),
        "shape": asdict(make_task(config).shape),
        "parameters": [[name, list(value.shape)] for name, value in parameters],
        "rounds": config.strategy.rounds,
        "seed": config.seed,
    }
