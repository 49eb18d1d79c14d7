"""The running sum of a round. Public: it adds what it cannot read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption.ciphertext import MemoryFile, dump_sum, load_fresh, seal_context
from encryption.control import ControlLayout
from encryption.parameters import CKKSParameters
from encryption.types import Accumulator, Parameters, Refused
from encryption.wire import Kind, check_count, header, parse_body


def make_accumulator(parameters: Parameters, blocks: int) -> Accumulator:
    """An empty sum of updates of ``blocks`` blocks."""
    if blocks < 1:
        raise ValueError("an update has at least one block")
    if isinstance(parameters, CKKSParameters):
        return CKKSAccumulator(parameters, blocks)
    return PlaintextAccumulator(parameters, blocks)


def blocks_needed(layout: ControlLayout) -> int:
    """Blocks of one update, control values included."""
    return layout.blocks


def digest(blocks: Sequence[bytes]) -> bytes:
    """SHA-256 that binds an opening to its summed blocks: their number, lengths and bytes."""
    state = hashlib.sha256(b"veilsum sum 1\0" + len(blocks).to_bytes(8, "little"))
    for block in blocks:
        state.update(len(block).to_bytes(8, "little"))
        state.update(block)
    return state.digest()


class CKKSAccumulator:
    """Sum of fresh ciphertexts. Memory: the sum, plus one client's ciphertexts during a fold."""

    def __init__(self, parameters: CKKSParameters, blocks: int) -> None:
        self._parameters = parameters
        self._blocks = blocks
        self._sums: list[seal.Ciphertext] = []
        self._evaluator = seal.Evaluator(seal_context(parameters))
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def fold(self, blocks: Sequence[bytes]) -> None:
        """Add one client's fresh blocks. Raises Refused and changes nothing if one is
        malformed, if their number is not the agreed one or if max_clients are in already."""
        _check_room(self._count, self._parameters)
        check_count(blocks, self._blocks)
        with MemoryFile() as file:
            fresh = [load_fresh(block, self._parameters, index, self._blocks, file)
                     for index, block in enumerate(blocks)]
        if self._sums:
            for total, one in zip(self._sums, fresh, strict=True):
                self._evaluator.add_inplace(total, one)
        else:
            self._sums = fresh
        self._count += 1

    def finish(self) -> tuple[bytes, ...]:
        """The summed blocks. Raises ValueError if nothing was folded."""
        _check_some(self._count)
        with MemoryFile() as file:
            return tuple(dump_sum(total, self._parameters, index, self._blocks, file)
                         for index, total in enumerate(self._sums))


class PlaintextAccumulator:
    """Sum of words, refusing what no client may send, as the oracle of the encrypted suites."""

    def __init__(self, parameters: Parameters, blocks: int) -> None:
        self._parameters = parameters
        self._sums = np.zeros((blocks, parameters.values_per_block), np.int64)
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def fold(self, blocks: Sequence[bytes]) -> None:
        """Add one client's fresh words. Raises Refused and changes nothing if malformed."""
        _check_room(self._count, self._parameters)
        check_count(blocks, len(self._sums))
        half = 1 << (self._parameters.bits - 1)
        fresh = parse_words(blocks, self._parameters, Kind.FRESH_WORDS)
        if fresh.min() < -half or fresh.max() >= half:
            raise Refused("a block holds a digit outside its range")
        self._sums += fresh
        self._count += 1

    def finish(self) -> tuple[bytes, ...]:
        """The summed blocks. Raises ValueError if nothing was folded."""
        _check_some(self._count)
        return dump_words(self._sums, self._parameters, Kind.SUM_WORDS)


def parse_words(blocks: Sequence[bytes], parameters: Parameters, kind: Kind) -> NDArray[np.int64]:
    """Blocks of words -> (blocks, values_per_block) digits. Raises Refused."""
    return np.stack([
        np.frombuffer(parse_body(block, parameters, kind, index, len(blocks)), "<i4")
        for index, block in enumerate(blocks)]).astype(np.int64)


def dump_words(digits: NDArray[np.int64], parameters: Parameters, kind: Kind
               ) -> tuple[bytes, ...]:
    """(blocks, values_per_block) digits within 32 bits -> blocks of words."""
    return tuple(header(parameters, kind, index, len(digits)) + row.astype("<i4").tobytes()
                 for index, row in enumerate(digits))


def _check_room(count: int, parameters: Parameters) -> None:
    if count >= parameters.max_clients:
        raise Refused("the sum already holds as many updates as its parameters allow")


def _check_some(count: int) -> None:
    if not count:
        raise ValueError("nothing was folded; wait for at least one update")
