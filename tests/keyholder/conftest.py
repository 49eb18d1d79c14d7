"""A small federation of either suite, for the contract and for hostile servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption.accumulator import digest, make_accumulator
from encryption.ciphertext import MemoryFile, dump_sum, load_fresh, load_sum, seal_context
from encryption.control import ControlLayout
from encryption.packing import pack
from encryption.parameters import choose_parameters
from encryption.types import OpenedSum, OpeningClaim, Parameters, RoundId
from encryption.wire import HEADER_BYTES, Kind, header
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer

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
        accumulator = make_accumulator(self.parameters, self.layout.blocks)
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
        if self.parameters.suite == "plaintext":
            return tuple(header(self.parameters, Kind.SUM_WORDS, i, len(update)) + b[HEADER_BYTES:]
                         for i, b in enumerate(update))
        with MemoryFile() as file:
            return tuple(
                dump_sum(load_fresh(block, self.parameters, i, len(update), file), self.parameters,
                         i, len(update), file) for i, block in enumerate(update))

    def combine(self, parts: Sequence[Sequence[bytes]], weights: Sequence[int] | None = None
                ) -> tuple[bytes, ...]:
        """A weighted sum of summed updates, as anyone can compute without the key."""
        weights = weights or [1] * len(parts)
        count = len(parts[0])
        if self.parameters.suite == "plaintext":
            totals = [sum(w * np.frombuffer(part[i][HEADER_BYTES:], "<i4").astype(np.int64)
                          for w, part in zip(weights, parts, strict=True)) for i in range(count)]
            return tuple(header(self.parameters, Kind.SUM_WORDS, i, count)
                         + total.astype("<i4").tobytes() for i, total in enumerate(totals))
        evaluator, blocks = seal.Evaluator(seal_context(self.parameters)), []
        with MemoryFile() as file:
            for i in range(count):
                loaded = [load_sum(part[i], self.parameters, i, count, file) for part in parts
                          for _ in range(weights[parts.index(part)])]
                for one in loaded[1:]:
                    evaluator.add_inplace(loaded[0], one)
                blocks.append(dump_sum(loaded[0], self.parameters, i, count, file))
        return tuple(blocks)

    def shift(self, digits: dict[int, int], off_grid: float = 0.0) -> tuple[bytes, ...]:
        """The honest sum with known amounts added to some digits."""
        delta = np.zeros(self.layout.digits, np.int64)
        for place, amount in digits.items():
            delta[place] = amount
        count = len(self.total)
        if self.parameters.suite == "plaintext":
            rows = delta.reshape(count, -1)
            return tuple(
                block[:HEADER_BYTES]
                + (np.frombuffer(block[HEADER_BYTES:], "<i4") + row).astype("<i4").tobytes()
                for block, row in zip(self.total, rows, strict=True))
        context = seal_context(self.parameters)
        encoder, plain, blocks = seal.CKKSEncoder(context), seal.Plaintext(), []
        slots = pack(delta, self.parameters)
        slots[0, 3] += off_grid
        with MemoryFile() as file:
            for i, block in enumerate(self.total):
                total = load_sum(block, self.parameters, i, count, file)
                encoder.encode(slots[i].tolist(), float(self.parameters.scale), plain)
                seal.Evaluator(context).add_plain_inplace(total, plain)
                blocks.append(dump_sum(total, self.parameters, i, count, file))
        return tuple(blocks)


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Federation]:
    def make(suite: str = "shared_key", clients: int = 6, bits: int = 16, values: int = 100,
             name: str = "guard") -> Federation:
        parameters = choose_parameters(suite, clients, bits)
        return Federation(parameters, SharedKey.generate(parameters),
                          ControlLayout(values, clients, parameters), tmp_path / name)

    return make
