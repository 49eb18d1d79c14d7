"""How an opened mean moves the global model. Post-processing: costs no privacy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from conf.schema import StrategyConfig

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ServerState:
    """The model (d,) before round ``round`` + 1, its velocity, and the running mean of the
    models of the averaged last rounds."""

    round: int
    model: Vector
    velocity: Vector
    mean: Vector
    averaged: int = 0

    @classmethod
    def start(cls, model: Vector) -> ServerState:
        return cls(0, model, np.zeros_like(model), np.zeros_like(model))

    @property
    def final(self) -> Vector:
        """The mean of the averaged rounds' models, or the current one before averaging began."""
        return self.mean if self.averaged else self.model


def step(state: ServerState, mean_update: Vector, config: StrategyConfig) -> ServerState:
    """Heavy-ball step along the mean update (Polyak 1964), then tail averaging (Polyak and
    Juditsky 1992) over the last ``average_last`` share of the rounds.

    ``mean_update`` (d,) points downhill: local minus global, or minus the gradient.
    """
    velocity = config.momentum * state.velocity + mean_update
    model = state.model + config.learning_rate * velocity
    now = state.round + 1
    moved = replace(state, round=now, model=model, velocity=velocity)
    if now <= config.rounds * (1 - config.average_last):
        return moved
    n = state.averaged + 1
    return replace(moved, mean=state.mean + (model - state.mean) / n, averaged=n)
