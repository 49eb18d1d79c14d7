"""The running sum of a round. Public: it adds what it cannot read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption import rlwe
from encryption.ciphertext import MemoryFile, dump_sum, fresh_bytes, load_fresh, seal_context
from encryption.ckks import CKKSParameters
from encryption.control import ControlLayout
from encryption.parameters import PlaintextParameters
from encryption.rlwe import RLWEParameters
from encryption.types import Parameters, Refused
from encryption.wire import (
    HEADER_BYTES,
    Kind,
    Place,
    check_count,
    frame,
    pack_bits,
    packed_bytes,
    parse,
    unpack_bits,
)

_ALL = slice(None)


def make_accumulator(layout: ControlLayout, round_number: int | None = None,
                     part: slice = _ALL) -> Sum:
    """An empty sum of updates of this layout in one round (None: the round that the first update
    belongs to), or of the blocks of a part of them."""
    if isinstance(layout.parameters, CKKSParameters):
        return _CKKSSum(layout, layout.parameters, round_number, part)
    if isinstance(layout.parameters, RLWEParameters):
        return _RLWESum(layout, layout.parameters, round_number, part)
    return _PlaintextSum(layout, layout.parameters, round_number, part)


def fresh_block_bytes(parameters: Parameters) -> int:
    """Size of a full block of one client, header included, in an encrypted suite."""
    if isinstance(parameters, CKKSParameters):
        return HEADER_BYTES + fresh_bytes(parameters)
    assert isinstance(parameters, RLWEParameters)
    return HEADER_BYTES + rlwe.SEED_BYTES + packed_bytes(rlwe.RING_DEGREE, parameters.kept_bits)


def update_bytes(layout: ControlLayout) -> int:
    """Size of all blocks of one client's update, headers included."""
    parameters, full = layout.parameters, layout.parameters.values_per_block
    if isinstance(parameters, PlaintextParameters):
        return layout.blocks * (HEADER_BYTES + 4 * full)
    if isinstance(parameters, RLWEParameters):
        return sum(HEADER_BYTES + rlwe.SEED_BYTES
                   + packed_bytes(parameters.width(values), parameters.kept_bits)
                   for values in layout.block_values)
    return layout.blocks * fresh_block_bytes(parameters)


def digest(blocks: Sequence[bytes]) -> bytes:
    """SHA-256 that binds an opening to its summed blocks: over their number and their headers, each
    of which holds the SHA-256 of its body. Meaningful for blocks that were parsed, which checks
    those."""
    state = hashlib.sha256(b"veilsum sum 2\0" + len(blocks).to_bytes(8, "little"))
    for block in blocks:
        state.update(block[:HEADER_BYTES])
    return state.digest()


@dataclass(frozen=True)
class Checked:
    """An update, or part of one, that can be added. ``blocks``: as its suite adds them."""

    round: int
    client: int
    blocks: Sequence[Any]


class Sum(ABC):
    """What all suites have in common: who is in, and that a fold is whole or nothing."""

    def __init__(self, layout: ControlLayout, round_number: int | None, part: slice) -> None:
        self._indexes = range(layout.blocks)[part]
        self._blocks, self._round = layout.blocks, round_number
        self._most = layout.parameters.max_clients
        self._clients: set[int] = set()

    @property
    def count(self) -> int:
        return len(self._clients)

    def fold(self, blocks: Sequence[bytes], client: int | None = None) -> None:
        """Add one client's fresh blocks. Raises Refused and changes nothing if one is malformed
        or belongs elsewhere: to another round, to another client than ``client`` (None: whoever
        the blocks name), to one that is in the sum already."""
        self.add(self.check(blocks, client))

    def check(self, blocks: Sequence[bytes], client: int | None = None) -> Checked:
        """What :meth:`add` takes. Raises Refused as :meth:`fold` does."""
        if self.count >= self._most:
            raise Refused("the sum already holds as many updates as its parameters allow")
        check_count(blocks, len(self._indexes))
        parsed = [self._parse(block, index)
                  for index, block in zip(self._indexes, blocks, strict=True)]
        first = parsed[0][0]
        if any((place.round, place.client) != (first.round, first.client) for place, _ in parsed):
            raise Refused("the blocks of an update name different rounds or clients")
        if self._round not in (None, first.round):
            raise Refused("the blocks belong to another round")
        if client not in (None, first.client) or first.client >= self._most:
            raise Refused("the blocks belong to another client")
        if first.client in self._clients:
            raise Refused("the sum already holds an update of this client")
        return Checked(first.round, first.client, self._load([body for _, body in parsed]))

    def add(self, update: Checked) -> None:
        """Add what was just checked. Never fails."""
        self._add(update.blocks)
        self._round = update.round
        self._clients.add(update.client)

    def finish(self) -> tuple[bytes, ...]:
        """The summed blocks. Raises ValueError if nothing was folded."""
        if self._round is None or not self._clients:
            raise ValueError("nothing was folded; wait for at least one update")
        return self._dump(self._round)

    @abstractmethod
    def _parse(self, block: bytes, index: int) -> tuple[Place, Any]:
        """Raises Refused."""

    @abstractmethod
    def _load(self, bodies: Sequence[Any]) -> Sequence[Any]:
        """What :meth:`_add` takes. Raises Refused."""

    @abstractmethod
    def _add(self, blocks: Sequence[Any]) -> None: ...

    @abstractmethod
    def _dump(self, number: int) -> tuple[bytes, ...]: ...


class _CKKSSum(Sum):
    """Memory: the sum, plus one client's ciphertexts during a fold."""

    def __init__(self, layout: ControlLayout, parameters: CKKSParameters,
                 round_number: int | None, part: slice) -> None:
        super().__init__(layout, round_number, part)
        self._parameters = parameters
        self._sums: list[seal.Ciphertext] = []
        self._evaluator = seal.Evaluator(seal_context(parameters))

    def _parse(self, block: bytes, index: int) -> tuple[Place, memoryview]:
        return parse(block, self._parameters, Kind.FRESH, index, self._blocks,
                     fresh_bytes(self._parameters))

    def _load(self, bodies: Sequence[memoryview]) -> list[seal.Ciphertext]:
        with MemoryFile() as file:
            return [load_fresh(body, self._parameters, file) for body in bodies]

    def _add(self, blocks: Sequence[seal.Ciphertext]) -> None:
        if self._sums:
            for total, one in zip(self._sums, blocks, strict=True):
                self._evaluator.add_inplace(total, one)
        else:
            self._sums = list(blocks)

    def _dump(self, number: int) -> tuple[bytes, ...]:
        with MemoryFile() as file:
            return tuple(
                dump_sum(total, self._parameters,
                         Place.of_sum(Kind.SUM, number, index, self._blocks), file)
                for index, total in zip(self._indexes, self._sums, strict=True))


class _RLWESum(Sum):
    """Memory: the sum, plus a batch of blocks. Any body of the right size is a ciphertext, so
    that nothing can fail once the headers are read, and blocks are added as they are expanded."""

    def __init__(self, layout: ControlLayout, parameters: RLWEParameters,
                 round_number: int | None, part: slice) -> None:
        super().__init__(layout, round_number, part)
        self._parameters = parameters
        self._widths = [parameters.width(values) for values in layout.block_values[part]]
        # Of c0 the last row is used up to its width only.
        self._c0 = np.zeros((len(self._widths), rlwe.RING_DEGREE), np.uint64)
        self._c1 = np.zeros((len(self._widths), rlwe.RING_DEGREE), np.uint64)

    def _parse(self, block: bytes, index: int) -> tuple[Place, memoryview]:
        width = self._widths[index - self._indexes.start]
        size = rlwe.SEED_BYTES + packed_bytes(width, self._parameters.kept_bits)
        return parse(block, self._parameters, Kind.FRESH, index, self._blocks, size)

    def _load(self, bodies: Sequence[memoryview]) -> Sequence[memoryview]:
        return bodies

    def _add(self, blocks: Sequence[memoryview]) -> None:
        stream, offset = rlwe.Stream(), self._indexes.start
        for batch in rlwe.batches(self._widths):
            width = self._widths[batch.start]
            self._c0[batch, :width] += unpack_bits(
                [body[rlwe.SEED_BYTES :] for body in blocks[batch]], width,
                self._parameters.kept_bits)
            first = batch.start
            for seed, equal in groupby(bytes(body[: rlwe.SEED_BYTES]) for body in blocks[batch]):
                count = len(list(equal))
                self._c1[first : first + count] += stream.uniform(seed, offset + first, count)
                first += count

    def _dump(self, number: int) -> tuple[bytes, ...]:
        kept, cut = self._parameters.kept_bits, self._parameters.sum_cut
        below, blocks = np.uint64(2**kept - 1), []
        for batch in rlwe.batches(self._widths):
            c0 = pack_bits(self._c0[batch, : self._widths[batch.start]] & below, kept)
            c1 = pack_bits(rlwe.drop(self._c1[batch].copy(), cut), rlwe.MODULUS_BITS - cut)
            first = self._indexes.start + batch.start
            for index, body in enumerate(zip(c0, c1, strict=True), first):
                place = Place.of_sum(Kind.SUM, number, index, self._blocks)
                blocks.append(frame(self._parameters, place, *body))
        return tuple(blocks)


class _PlaintextSum(Sum):
    """Sum of words, refusing what no client may send, as the oracle of the encrypted suites."""

    def __init__(self, layout: ControlLayout, parameters: Parameters,
                 round_number: int | None, part: slice) -> None:
        super().__init__(layout, round_number, part)
        self._parameters = parameters
        self._sums = np.zeros((len(self._indexes), parameters.values_per_block), np.int64)

    def _parse(self, block: bytes, index: int) -> tuple[Place, NDArray[np.int64]]:
        return parse_words(block, self._parameters, Kind.FRESH_WORDS, index, self._blocks)

    def _load(self, bodies: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        half = 1 << (self._parameters.bits - 1)
        if any(fresh.min() < -half or fresh.max() >= half for fresh in bodies):
            raise Refused("a block holds a digit outside its range")
        return list(bodies)

    def _add(self, blocks: Sequence[NDArray[np.int64]]) -> None:
        for total, one in zip(self._sums, blocks, strict=True):
            total += one

    def _dump(self, number: int) -> tuple[bytes, ...]:
        return tuple(
            dump_words(row, self._parameters,
                       Place.of_sum(Kind.SUM_WORDS, number, index, self._blocks))
            for index, row in zip(self._indexes, self._sums, strict=True))


def parse_words(block: bytes, parameters: Parameters, kind: Kind, index: int, count: int
                ) -> tuple[Place, NDArray[np.int64]]:
    """Place and digits, (values_per_block,), of one block. Raises Refused."""
    word = _word(parameters, kind)
    place, body = parse(block, parameters, kind, index, count,
                        word.itemsize * parameters.values_per_block)
    return place, np.frombuffer(body, word).astype(np.int64)


def dump_words(digits: NDArray[np.int64], parameters: Parameters, place: Place) -> bytes:
    """(values_per_block,) digits of one client, or of a sum, as ``place`` says -> one block."""
    return frame(parameters, place, digits.astype(_word(parameters, place.kind)).tobytes())


def _word(parameters: Parameters, kind: Kind) -> np.dtype[np.signedinteger]:
    assert isinstance(parameters, PlaintextParameters)
    return np.dtype("<i8" if kind == Kind.SUM_WORDS and parameters.sum_word_bytes == 8 else "<i4")
