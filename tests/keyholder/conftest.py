"""A small federation of any suite, for the contract and for hostile servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import OpenedSum, OpeningClaim, Parameters, RoundId
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer
from tests.keyholder import forging

FIRST = RoundId("5eed", 1)


@dataclass
class Federation:
    parameters: Parameters
    key: SharedKey
    layout: ControlLayout
    folder: Path
    updates: Sequence[tuple[bytes, ...]] = ()
    total: tuple[bytes, ...] = ()

    def seal(self, values: NDArray[np.int64], partner: int, round_id: RoundId = FIRST
             ) -> tuple[bytes, ...]:
        return Sealer(self.key, self.layout, partner).seal(values, round_id)

    def add(self, updates: Sequence[Sequence[bytes]]) -> tuple[bytes, ...]:
        accumulator = make_accumulator(self.layout)
        for update in updates:
            accumulator.fold(update)
        return accumulator.finish()

    def open(self, blocks: Sequence[bytes], partners: Sequence[int], round_id: RoundId = FIRST,
             minimum: int = 1, key: SharedKey | None = None) -> OpenedSum:
        opener = SumOpener(key or self.key, self.layout, OpeningGuard(self.folder), minimum)
        return opener.open(OpeningClaim(round_id, tuple(partners), digest(blocks)), blocks)

    def values(self, seed: int) -> NDArray[np.int64]:
        half = 2 ** (self.parameters.bits - 1)
        return np.random.default_rng(seed).integers(-half, half, self.layout.values)

    def expand(self, update: Sequence[bytes]) -> tuple[bytes, ...]:
        """A fresh update as a summed one: what a server that adds nothing would send."""
        return self.add([update])

    def combine(self, parts: Sequence[Sequence[bytes]], weights: Sequence[int] | None = None
                ) -> tuple[bytes, ...]:
        return forging.combine(self.parameters, parts, weights or [1] * len(parts))

    def shift(self, digits: dict[int, int], off_grid: float = 0.0) -> tuple[bytes, ...]:
        """The honest sum with known amounts added to some digits."""
        delta = np.zeros(self.layout.digits, np.int64)
        for place, amount in digits.items():
            delta[place] = amount
        return forging.shift(self.layout, self.total, delta, off_grid)

    def relabel(self, blocks: Sequence[bytes], **changes: int) -> tuple[bytes, ...]:
        return tuple(forging.relabel(self.parameters, block, **changes) for block in blocks)


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Federation]:
    def make(suite: str = "shared_key", clients: int = 6, bits: int = 16, values: int = 100,
             name: str = "guard") -> Federation:
        parameters = choose_parameters(suite, clients, bits)
        return Federation(parameters, SharedKey.generate(parameters),
                          ControlLayout(values, clients, parameters), tmp_path / name)

    return make
