"""One partner's customers as arrays, split by time and customer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

_GRID, _MOST_FEATURE = 2.0**20, 16.0
"""A float32 below 16 has no bit finer than 2^-20, and so 24 bits hold every multiple."""
_KEPT_IN_FLOAT64 = 2**22
"""Of a part's features: 32 MB."""
_Features = TypeVar("_Features", NDArray[np.float32], torch.Tensor)


@dataclass(frozen=True)
class InputShape:
    """How the flat features (f,) of one example are laid out: ``outputs`` groups of
    ``per_output`` hand-made features, then the history: ``series`` of ``steps`` x ``channels``,
    each time-major, oldest first. f = outputs * per_output + series * steps * channels.

    outputs: numbers predicted for an example: 1 (will it be bought), 24 (hours of a day);
    series: 1 for a history that all outputs share, or one for each output.
    """

    outputs: int
    per_output: int
    steps: int = 0
    channels: int = 0
    series: int = 1

    @property
    def size(self) -> int:
        """f."""
        return self.outputs * self.per_output + self.series * self.steps * self.channels

    def groups(self, features: _Features) -> _Features:
        """(..., f) -> (..., outputs, per_output), a view."""
        made = features[..., :self.outputs * self.per_output]
        return made.reshape(*made.shape[:-1], self.outputs, self.per_output)

    def history(self, features: _Features) -> _Features:
        """(..., f) -> (..., series, steps, channels), a view."""
        past = features[..., self.outputs * self.per_output:]
        return past.reshape(*past.shape[:-1], self.series, self.steps, self.channels)


@dataclass(frozen=True)
class Customers:
    """Examples of one partner, grouped by customer (the privacy unit) and padded.

    features: (n, e, f) float32, bounded by public constants; targets: (n, e, o) float32, what
    comes true, in the metric's unit; mask: (n, e) bool, False where padded; naive: (n, e, o)
    float32, the naive baseline's score (or prediction, in the unit of targets) of the same
    examples; scale: (n, e) float32 or None. n may be 0.

    With a scale a model learns what the naive prediction leaves open: its output stands for
    naive + scale * output, and its goal is (targets - naive) / scale. So a model that says 0 is
    the naive rule, and customers large and small have goals of the same size. Without one the
    output is the score (a logit), and the targets are the goal.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    naive: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64]) -> Customers:
        return Customers(*(array if array is None else array[rows] for array in self.arrays))

    def fewest_first(self) -> Customers:
        """The same customers by number of examples: what works on them in turn has less padding
        to work on."""
        return self.take(np.argsort(self.mask.sum(1), kind="stable"))

    @property
    def arrays(self) -> tuple[NDArray[np.generic] | None, ...]:
        """In the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def goals(self) -> NDArray[np.float32]:
        """(n, e, o): what a model's output is trained towards; 0 where padded."""
        if self.scale is None:
            return self.targets
        goals = (self.targets - self.naive) / np.where(self.mask, self.scale, 1)[..., None]
        return np.where(self.mask[..., None], goals, 0).astype(np.float32)

    @cached_property
    def grid(self) -> NDArray[np.floating]:
        """(n, e, f): the features as multiples of 2^-20 within +-16, which makes sums of their
        products exact (:mod:`learning.exact`). float64, as training wants it, while that is
        little; else float32, and ``features`` itself where they are such multiples already."""
        limit = _GRID * _MOST_FEATURE
        values = np.clip(np.rint(self.features * np.float32(_GRID)), -limit, limit)
        values /= np.float32(_GRID)
        if values.size <= _KEPT_IN_FLOAT64:
            return values.astype(np.float64)
        return self.features if np.array_equal(values, self.features) else values

    def scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A model's outputs (n, e, o) as scores to be compared with ``targets``."""
        return outputs if self.scale is None else self.naive + self.scale[..., None] * outputs


def concatenate(parts: Sequence[Customers]) -> Customers:
    """All customers of several parts (of several partners, say), padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)

    def joined(arrays: tuple[NDArray[np.generic] | None, ...]) -> NDArray[np.generic] | None:
        if any(array is None for array in arrays):
            return None
        return np.concatenate([
            np.pad(array, [(0, 0), (0, longest - array.shape[1])] + [(0, 0)] * (array.ndim - 2))
            for array in arrays])

    return Customers(*map(joined, zip(*(part.arrays for part in parts), strict=True)))


@dataclass(frozen=True)
class PartnerData:
    """Splits of one partner. train and validation hold the same customers at different times;
    test: those customers at the test snapshot; heldout: the test snapshot of customers that
    never took part in training (disjoint, so their release composes in parallel)."""

    train: Customers
    validation: Customers
    test: Customers
    heldout: Customers
