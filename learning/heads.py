"""Which parameters of a model stay at each partner: its head.

Partners differ (base rates, habits), and one model for all averages that away. With a head, the
federation trains all other parameters together, and each partner fits the head to its own
customers; how that stays private is :mod:`privacy.plan`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class HeadMask:
    """``own``: (d,) True where a parameter of the flat model belongs to the head. k = sum(own)
    stay at the partner, the other d - k are shared; k may be 0."""

    own: NDArray[np.bool_]

    @classmethod
    def of(cls, model: nn.Module, head: str) -> HeadMask:
        """head: "shared", "bias" (of the last layer) or "last_layer"."""
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        last = linear[-1]
        names = {"shared": (), "bias": (f"{last}.bias",),
                 "last_layer": (f"{last}.weight", f"{last}.bias")}[head]
        return cls(np.concatenate([np.full(parameter.numel(), name in names)
                                   for name, parameter in model.named_parameters()]))

    @property
    def size(self) -> int:
        """k."""
        return int(self.own.sum())

    def shared(self, vector: Vector) -> Vector:
        """(d,) -> (d - k,)."""
        return vector[~self.own]

    def head(self, vector: Vector) -> Vector:
        """(d,) -> (k,)."""
        return vector[self.own]

    def whole(self, shared: Vector, head: Vector) -> Vector:
        """(d - k,), (k,) -> (d,). Raises ValueError on other lengths."""
        if shared.shape != (self.own.size - self.size,) or head.shape != (self.size,):
            raise ValueError(f"{shared.shape} shared and {head.shape} own parameters do not make a "
                             f"model of {self.own.size} with {self.size} own ones")
        vector = np.empty(self.own.size)
        vector[~self.own], vector[self.own] = shared, head
        return vector
