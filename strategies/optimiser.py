"""How an opened mean moves the global model. Post-processing: costs no privacy."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conf.schema import StrategyConfig

Vector = NDArray[np.float64]
_HEAD = struct.Struct("<IIB")
_VECTORS = ("model", "velocity", "second", "mean")


@dataclass(frozen=True)
class ServerState:
    """The model (d,) before round ``round`` + 1, its velocity (fedadam: first moment), second
    moment (fedadam), and the running mean of the models of the averaged last rounds."""

    round: int
    model: Vector
    velocity: Vector
    second: Vector
    mean: Vector
    averaged: int = 0

    @classmethod
    def start(cls, model: Vector) -> ServerState:
        return cls(0, model, *(np.zeros_like(model) for _ in range(3)))

    @property
    def final(self) -> Vector:
        """The mean of the averaged rounds' models, or the current one before averaging began."""
        return self.mean if self.averaged else self.model

    def packed(self) -> bytes:
        """round (4), averaged rounds (4), which of model, velocity, second, mean follow (a byte, a
        bit each; those of zeros alone do not), then these, each d float64. Little-endian."""
        vectors = [getattr(self, name) for name in _VECTORS]
        there = sum(bool(vector.any()) << i for i, vector in enumerate(vectors)) | 1
        return _HEAD.pack(self.round, self.averaged, there) + b"".join(
            vector.astype("<f8").tobytes()
            for i, vector in enumerate(vectors) if there >> i & 1)

    @classmethod
    def unpacked(cls, content: bytes) -> ServerState:
        """Inverse of :meth:`packed`, for bytes that were written by it."""
        number, averaged, there = _HEAD.unpack_from(content)
        values = np.frombuffer(content, "<f8", offset=_HEAD.size).reshape(there.bit_count(), -1)
        rows = iter(values.astype(np.float64))
        vectors = {name: next(rows) if there >> i & 1 else np.zeros(values.shape[1])
                   for i, name in enumerate(_VECTORS)}
        return cls(round=number, averaged=averaged, **vectors)


def step(state: ServerState, mean_update: Vector, config: StrategyConfig) -> ServerState:
    """A step along the mean update, then tail averaging (Polyak and Juditsky 1992) over the last
    ``average_last`` share of the rounds.

    fedavg, fedprox: heavy ball (Polyak 1964). fedadam: algorithm 2 of Reddi et al. 2021,
    "Adaptive Federated Optimization", with beta1 = ``momentum``, beta2 = ``second_momentum``, tau =
    ``adaptivity``, v starting at tau^2 and no bias correction. ``mean_update`` (d,) points
    downhill: local minus global, or minus the gradient.
    """
    moved = _adam(state, mean_update, config) if config.name == "fedadam" else (
        _heavy_ball(state, mean_update, config))
    model = moved.model
    now = state.round + 1
    moved = replace(moved, round=now)
    averaged = math.ceil(config.rounds * config.average_last - 1e-9)  # 0.9 of 100 is 90, not 91
    if now <= config.rounds - averaged:
        return moved
    n = state.averaged + 1
    return replace(moved, mean=state.mean + (model - state.mean) / n, averaged=n)


def _heavy_ball(state: ServerState, mean_update: Vector, config: StrategyConfig) -> ServerState:
    velocity = config.momentum * state.velocity + mean_update
    return replace(state, velocity=velocity, model=state.model + config.learning_rate * velocity)


def _adam(state: ServerState, mean_update: Vector, config: StrategyConfig) -> ServerState:
    start = state.second if state.round else np.full_like(state.second, config.adaptivity**2)
    first = config.momentum * state.velocity + (1 - config.momentum) * mean_update
    second = config.second_momentum * start + (1 - config.second_momentum) * mean_update**2
    change = config.learning_rate * first / (np.sqrt(second) + config.adaptivity)
    return replace(state, velocity=first, second=second, model=state.model + change)
