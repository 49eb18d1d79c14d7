"""What anyone can do with summed blocks without a key: rewrite headers, add, scale, shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption import rlwe
from encryption.ciphertext import MemoryFile, dump_sum, load_sum, seal_body, seal_context
from encryption.ckks import CKKSParameters
from encryption.packing import pack
from encryption.types import Parameters
from encryption.wire import (
    HEADER_BYTES,
    Kind,
    Place,
    frame,
    pack_bits,
    packed_bytes,
    unpack_bits,
)


def place_of(block: bytes) -> Place:
    numbers = [int.from_bytes(block[at : at + 4], "little") for at in (24, 28, 32, 36)]
    return Place(Kind(block[5]), *numbers)


def relabel(parameters: Parameters, block: bytes, **changes: int) -> bytes:
    """The same body under another header, with the digest that belongs to it."""
    return frame(parameters, replace(place_of(block), **changes), block[HEADER_BYTES:])


def combine(parameters: Parameters, parts: Sequence[Sequence[bytes]], weights: Sequence[int]
            ) -> tuple[bytes, ...]:
    """A weighted sum of summed updates, block by block."""
    return tuple(
        _combined(parameters, [part[i] for part in parts], weights) for i in range(len(parts[0])))


def shift(parameters: Parameters, total: Sequence[bytes], digits: NDArray[np.int64],
          off_grid: float = 0.0) -> tuple[bytes, ...]:
    """(blocks * values_per_block,) digits and, in the first block, a part of a grid step added
    to what the blocks hold."""
    rows = digits.reshape(len(total), -1)
    return tuple(_shifted(parameters, block, row, off_grid if i == 0 else 0.0)
                 for i, (block, row) in enumerate(zip(total, rows, strict=True)))


def own_message(parameters: Parameters, digits: NDArray[np.int64], number: int
                ) -> tuple[bytes, ...]:
    """(message, 0): a ciphertext that decrypts to a message of one's choice under every key."""
    count = len(digits) // parameters.values_per_block
    rows = digits.reshape(count, -1)
    if isinstance(parameters, CKKSParameters):
        return tuple(_encoded(parameters, row, Place.of_sum(Kind.SUM, number, i, count))
                     for i, row in enumerate(rows))
    if isinstance(parameters, rlwe.RLWEParameters):
        size = packed_bytes(4096, parameters.kept_bits + 64 - parameters.sum_cut)
        kind = Kind.SUM
    else:
        size, kind = 4 * parameters.values_per_block, Kind.SUM_WORDS
    nothing = [frame(parameters, Place.of_sum(kind, number, i, count), bytes(size))
               for i in range(count)]
    return shift(parameters, nothing, digits)


def _encoded(parameters: CKKSParameters, digits: NDArray[np.int64], place: Place) -> bytes:
    plain, words = seal.Plaintext(), 8 * parameters.ring_degree
    slots = pack(digits, parameters)[0]
    seal.CKKSEncoder(seal_context(parameters)).encode(
        slots.tolist(), float(parameters.scale), plain)
    with MemoryFile() as file:
        plain.save(file.path)
        residues = np.frombuffer(seal_body(file.read(), 72 + words)[72:], "<u8")
    return frame(parameters, place, *pack_bits(residues.reshape(1, -1), parameters.prime_bits),
                 bytes(packed_bytes(parameters.ring_degree, parameters.prime_bits)))


def rlwe_words(parameters: rlwe.RLWEParameters, block: bytes) -> NDArray[np.uint64]:
    """(2, N) words of c0 and c1 of a summed block."""
    body, cut = block[HEADER_BYTES:], parameters.sum_cut
    size = packed_bytes(4096, parameters.kept_bits)
    return np.concatenate([
        unpack_bits([body[:size]], 4096, parameters.kept_bits) << np.uint64(parameters.cut),
        unpack_bits([body[size:]], 4096, 64 - cut) << np.uint64(cut)])


def _rlwe_block(parameters: rlwe.RLWEParameters, words: NDArray[np.uint64], place: Place) -> bytes:
    c0 = rlwe.drop(words[:1].copy(), parameters.cut) & np.uint64(2**parameters.kept_bits - 1)
    c1 = words[1:] >> np.uint64(parameters.sum_cut)
    return frame(parameters, place, *pack_bits(c0, parameters.kept_bits),
                 *pack_bits(c1, 64 - parameters.sum_cut))


def _combined(parameters: Parameters, blocks: Sequence[bytes], weights: Sequence[int]) -> bytes:
    place = place_of(blocks[0])
    if parameters.suite == "plaintext":
        total = sum(w * np.frombuffer(block[HEADER_BYTES:], "<i4").astype(np.int64)
                    for w, block in zip(weights, blocks, strict=True))
        return frame(parameters, place, total.astype("<i4").tobytes())
    if isinstance(parameters, rlwe.RLWEParameters):
        words = sum(rlwe_words(parameters, block) * np.uint64(w)
                    for w, block in zip(weights, blocks, strict=True))
        return _rlwe_block(parameters, words, place)
    evaluator = seal.Evaluator(seal_context(parameters))
    with MemoryFile() as file:
        loaded = [load_sum(block, parameters, place.index, place.count, file)[1]
                  for block, w in zip(blocks, weights, strict=True) for _ in range(w)]
        for one in loaded[1:]:
            evaluator.add_inplace(loaded[0], one)
        return dump_sum(loaded[0], parameters, place, file)


def _shifted(parameters: Parameters, block: bytes, digits: NDArray[np.int64], off_grid: float
             ) -> bytes:
    place = place_of(block)
    if parameters.suite == "plaintext":
        words = np.frombuffer(block[HEADER_BYTES:], "<i4") + digits
        return frame(parameters, place, words.astype("<i4").tobytes())
    if isinstance(parameters, rlwe.RLWEParameters):
        words = rlwe_words(parameters, block)
        added = rlwe.pack_coefficients(digits, parameters)[0] * parameters.step
        added[3] += int(off_grid * parameters.step)
        words[0] += added.view(np.uint64)
        return _rlwe_block(parameters, words, place)
    context, plain = seal_context(parameters), seal.Plaintext()
    slots = pack(digits, parameters)[0]
    slots[3] += off_grid
    with MemoryFile() as file:
        _, total = load_sum(block, parameters, place.index, place.count, file)
        seal.CKKSEncoder(context).encode(slots.tolist(), float(parameters.scale), plain)
        seal.Evaluator(context).add_plain_inplace(total, plain)
        return dump_sum(total, parameters, place, file)
