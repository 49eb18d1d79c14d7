"""One partner's customers as arrays, split by time and customer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from learning.keeping import KEPT

PART_VALUES = 2**24
"""Features of the customers of a part, padding among them: 64 MiB of float32."""
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

    def narrowed(self) -> Customers:
        """Without the places at the end that all customers have padded; one stays."""
        longest = max(1, int(np.flatnonzero(self.mask.any(0)).max(initial=0)) + 1)
        if longest >= self.mask.shape[1]:
            return self
        return Customers(*(None if array is None else array[:, :longest]
                           for array in self.arrays))

    @property
    def nbytes(self) -> int:
        """Of all arrays, with what is made of them once: goals and grid."""
        own = sum(array.nbytes for array in self.arrays if array is not None)
        grid = 0 if self.grid is self.features else self.grid.nbytes
        return own + grid + (0 if self.scale is None else self.goals.nbytes)

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
        limit, grid = _GRID * _MOST_FEATURE, np.float32(_GRID)
        with np.errstate(over="ignore"):
            values = np.clip(np.rint(self.features * grid), -limit, limit) / grid
        values[~np.isfinite(self.features)] = np.nan  # their customer counts zero
        if values.size <= _KEPT_IN_FLOAT64:
            return values.astype(np.float64)
        return self.features if np.array_equal(values, self.features) else values

    def scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A model's outputs (n, e, o) as scores to be compared with ``targets``."""
        if self.scale is None:
            return outputs
        with np.errstate(over="ignore", invalid="ignore"):  # outputs need not be finite
            return self.naive + self.scale[..., None] * outputs


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


@dataclass(frozen=True, eq=False)
class CustomerParts:
    """Customers of one split, made and worked on in parts: memory is bounded by PART_VALUES, not
    by how many they are.

    Guarantee: every customer lies in exactly one part; parts come in the same order each time;
    and a customer's examples are the same to the bit in every part, because ``build`` makes them
    of that customer's rows alone.

    counts: (n,) examples of each customer. build: which of them, (k,) in any order -> their
    arrays in that order, padded to the longest. values: features of one example; each: what
    making a customer takes beside them, in floats. Customers of more than one part are ordered by
    their number of examples, so that there is little padding.
    """

    counts: NDArray[np.int64]
    build: Callable[[NDArray[np.int64]], Customers]
    values: int
    each: int = 0
    _kept: dict[int, Customers] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, customers: Customers) -> CustomerParts:
        """Of customers that are in memory already."""
        return cls(customers.mask.sum(1), lambda rows: customers.take(rows).narrowed(),
                   customers.features.shape[-1])

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def examples(self) -> int:
        return int(self.counts.sum())

    def parts(self) -> Iterator[Customers]:
        """All customers; one empty part for n = 0. Arrays are read-only, and kept for the next
        time while the process has room for them (learning.keeping), else made again."""
        for place in range(len(self._cuts)):
            yield self._part(place)

    def whole(self) -> Customers:
        """All customers at once, for what cannot go by parts (baselines, tests): takes memory for
        all of them, about twice their features while it joins several parts. Of a split that fits
        into one part it is that part."""
        if len(self._cuts) == 1:
            return self._part(0)
        return concatenate(list(self.parts()))

    def fewest_first(self) -> CustomerParts:
        """The same customers by number of examples, even if they fit into one part: what works
        on them in turn has less padding to work on."""
        order = np.argsort(self.counts, kind="stable")
        return replace(self, counts=self.counts[order],
                       build=lambda rows: self.build(order[rows]), _kept={})

    def _part(self, place: int) -> Customers:
        part = self._kept.get(place)
        if part is None:
            part = self.build(self._cuts[place])
            for array in (*part.arrays, part.goals):
                if array is not None:
                    array.flags.writeable = False
            if KEPT.keep(self, part.nbytes):
                self._kept[place] = part
        return part

    @cached_property
    def _cuts(self) -> tuple[NDArray[np.int64], ...]:
        """Which customers each part holds."""
        whole = np.arange(len(self.counts))
        if len(whole) * self._size(int(self.counts.max(initial=0))) <= PART_VALUES:
            return (whole,)
        order = np.argsort(self.counts, kind="stable")
        cuts, start = [], 0
        for place, count in enumerate(self.counts[order].tolist()):  # ascending
            if place > start and (place + 1 - start) * self._size(count) > PART_VALUES:
                cuts.append(place)
                start = place
        return tuple(np.split(order, cuts))

    def _size(self, examples: int) -> int:
        return max(1, examples) * self.values + self.each


@dataclass(frozen=True)
class PartnerData:
    """Splits of one partner. train and validation hold the same customers at different times;
    test: those customers at the test snapshot; heldout: the test snapshot of customers that
    never took part in training (disjoint, so their release composes in parallel)."""

    train: CustomerParts
    validation: CustomerParts
    test: CustomerParts
    heldout: CustomerParts
