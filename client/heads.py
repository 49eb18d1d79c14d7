"""A partner's head: its own parameters, and how they move. It never leaves the site's state folder.

A file per round, ``ROUND.head`` in a folder of the run: magic ``VEILHEAD`` (8), SHA-256 of all
that follows (32), SHA-256 of the run's name at the site (32), the round it came from (4), averaged
rounds (4), both little-endian, then model, velocity, second moment and mean, (k,) float64 each.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from conf.schema import Config
from encryption.types import Refused, RoundId
from learning.models import get_flat, set_flat
from learning.registry import head_mask, make_model
from strategies.agreement import Agreement
from strategies.durable import write_whole
from strategies.optimiser import ServerState, step

Vector = NDArray[np.float64]
_MAGIC = b"VEILHEAD"
_HEADER = struct.Struct("<32sII")
_BODY_AT = len(_MAGIC) + 32
_VECTORS = ("model", "velocity", "second", "mean")
_KEEP = 2


class HeadDamaged(Refused):
    """The stored head is not what was written; move the run's folder away to begin anew."""


def start_head(config: Config) -> ServerState:
    """The public start values (k,) of every partner's head."""
    return ServerState.start(head_mask(config).head(get_flat(make_model(config))))


def step_head(state: ServerState, number: int, total: Vector, config: Config,
              agreement: Agreement, partner: str) -> ServerState:
    """The head after round ``number``: the strategy's own step, along this partner's noised sum
    ``total`` (k,). Rounds that it missed count as such."""
    strategy = replace(config.strategy, learning_rate=config.strategy.head_learning_rate)
    if not state.round and strategy.name == "fedadam":  # starts here, whichever round it is
        state = replace(state, second=np.full_like(state.second, strategy.adaptivity**2))
    return step(replace(state, round=number - 1), total / agreement.head_divisors[partner],
                strategy)


@dataclass(frozen=True)
class HeadStore:
    """The heads of one run, below ``folder``, over restarts; the newest two are kept, so that a
    round that was cut off starts again from where it had started."""

    folder: Path
    start: ServerState

    def before(self, round_id: RoundId, answered: int = 0) -> ServerState:
        """What the round begins with: the newest head of an earlier one, or the start.
        ``answered``: the newest round that this site answered, which left a head. Raises
        HeadDamaged."""
        numbers = [number for number in self._stored(round_id) if number < round_id.round]
        if max(numbers, default=0) < min(answered, round_id.round - 1):
            raise HeadDamaged("the head that this run's last round left is gone from the state "
                              "folder; put it back, or begin a new run")
        if not numbers:
            return self.start
        return self._unpack(self._path(RoundId(round_id.run, max(numbers))).read_bytes(),
                            RoundId(round_id.run, max(numbers)))

    def put(self, round_id: RoundId, state: ServerState) -> None:
        """Store what the round leaves, whole and on the disk when this returns."""
        write_whole(self._path(round_id), _pack(round_id, state))
        for old in sorted(self._stored(round_id))[:-_KEEP]:
            self._path(RoundId(round_id.run, old)).unlink(missing_ok=True)

    def put_model(self, round_id: RoundId, vector: Vector, config: Config) -> None:
        """Keep the partner's whole final model (d,), its own head included, as ``model.pt``, a
        state_dict for ``torch.load``: nobody else could put it together."""
        model, content = make_model(config), BytesIO()
        set_flat(model, vector)
        torch.save(model.state_dict(), content)
        write_whole(self._path(round_id).with_name("model.pt"), content.getvalue())

    def _unpack(self, content: bytes, round_id: RoundId) -> ServerState:
        whole = content.startswith(_MAGIC) and content[len(_MAGIC):_BODY_AT] == hashlib.sha256(
            content[_BODY_AT:]).digest()
        if not whole or len(content) < _BODY_AT + _HEADER.size:
            raise HeadDamaged("the stored head of this run is damaged")
        run, number, averaged = _HEADER.unpack_from(content, _BODY_AT)
        values = np.frombuffer(content, "<f8", offset=_BODY_AT + _HEADER.size)
        if (run, number) != (_run_hash(round_id), round_id.round) or (
                values.size != len(_VECTORS) * self.start.model.size):
            raise HeadDamaged("the stored head is another run's or round's")
        rows = values.astype(np.float64).reshape(len(_VECTORS), -1)
        return ServerState(number, *rows, averaged)

    def _stored(self, round_id: RoundId) -> list[int]:
        return [int(path.stem) for path in self._path(round_id).parent.glob("[0-9]*.head")
                if path.stem.isdecimal()]

    def _path(self, round_id: RoundId) -> Path:
        return self.folder / _run_hash(round_id).hex()[:32] / f"{round_id.round:09d}.head"


def _run_hash(round_id: RoundId) -> bytes:
    return hashlib.sha256(round_id.run.encode()).digest()


def _pack(round_id: RoundId, state: ServerState) -> bytes:
    body = _HEADER.pack(_run_hash(round_id), round_id.round, state.averaged) + b"".join(
        getattr(state, name).astype("<f8").tobytes() for name in _VECTORS)
    return _MAGIC + hashlib.sha256(body).digest() + body
