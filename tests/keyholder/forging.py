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
from encryption.control import ControlLayout
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


def shift(layout: ControlLayout, total: Sequence[bytes], digits: NDArray[np.int64],
          off_grid: float = 0.0) -> tuple[bytes, ...]:
    """Digits and, in the first block, a part of a grid step added to what the blocks hold."""
    ends = np.cumsum(layout.block_values)
    return tuple(
        _shifted(layout.parameters, block, digits[end - values : end], 0.0 if i else off_grid)
        for i, (block, values, end) in enumerate(
            zip(total, layout.block_values, ends, strict=True)))


def own_message(layout: ControlLayout, digits: NDArray[np.int64], number: int
                ) -> tuple[bytes, ...]:
    """(message, 0): a ciphertext that decrypts to a message of one's choice under every key."""
    parameters, count = layout.parameters, layout.blocks
    ends = np.cumsum(layout.block_values)
    nothing = []
    for i, values in enumerate(layout.block_values):
        place = Place.of_sum(Kind.SUM, number, i, count)
        if isinstance(parameters, CKKSParameters):
            nothing.append(_encoded(parameters, digits[ends[i] - values : ends[i]], place))
        elif isinstance(parameters, rlwe.RLWEParameters):
            size = (packed_bytes(parameters.width(values), parameters.kept_bits)
                    + packed_bytes(4096, 64 - parameters.sum_cut))
            nothing.append(frame(parameters, place, bytes(size)))
        else:
            words = replace(place, kind=Kind.SUM_WORDS)
            nothing.append(frame(parameters, words, bytes(4 * values)))
    if isinstance(parameters, CKKSParameters):
        return tuple(nothing)
    return shift(layout, nothing, digits)


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


def rlwe_words(parameters: rlwe.RLWEParameters, block: bytes
               ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """c0 (width,) and c1 (N,) of a summed block, as words."""
    body, cut = block[HEADER_BYTES:], parameters.sum_cut
    at = len(body) - packed_bytes(4096, 64 - cut)
    c0 = unpack_bits([body[:at]], 8 * at // parameters.kept_bits, parameters.kept_bits)[0]
    c1 = unpack_bits([body[at:]], 4096, 64 - cut)[0]
    return c0 << np.uint64(parameters.cut), c1 << np.uint64(cut)


def _rlwe_block(parameters: rlwe.RLWEParameters, c0: NDArray[np.uint64], c1: NDArray[np.uint64],
                place: Place) -> bytes:
    kept = rlwe.drop(c0.copy(), parameters.cut) & np.uint64(2**parameters.kept_bits - 1)
    return frame(parameters, place, *pack_bits(kept[np.newaxis], parameters.kept_bits),
                 *pack_bits((c1 >> np.uint64(parameters.sum_cut))[np.newaxis],
                            64 - parameters.sum_cut))


def _combined(parameters: Parameters, blocks: Sequence[bytes], weights: Sequence[int]) -> bytes:
    place = place_of(blocks[0])
    if parameters.suite == "plaintext":
        total = sum(w * np.frombuffer(block[HEADER_BYTES:], "<i4").astype(np.int64)
                    for w, block in zip(weights, blocks, strict=True))
        return frame(parameters, place, total.astype("<i4").tobytes())
    if isinstance(parameters, rlwe.RLWEParameters):
        words = [rlwe_words(parameters, block) for block in blocks]
        c0, c1 = (sum(part[i] * np.uint64(w) for w, part in zip(weights, words, strict=True))
                  for i in (0, 1))
        return _rlwe_block(parameters, c0, c1, place)
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
        c0, c1 = rlwe_words(parameters, block)
        added = rlwe.pack_coefficients(digits[np.newaxis], parameters)[0] * parameters.step
        added[3] += int(off_grid * parameters.step)
        return _rlwe_block(parameters, c0 + added.view(np.uint64), c1, place)
    context, plain = seal_context(parameters), seal.Plaintext()
    slots = pack(digits, parameters)[0]
    slots[3] += off_grid
    with MemoryFile() as file:
        _, total = load_sum(block, parameters, place.index, place.count, file)
        seal.CKKSEncoder(context).encode(slots.tolist(), float(parameters.scale), plain)
        seal.Evaluator(context).add_plain_inplace(total, plain)
        return dump_sum(total, parameters, place, file)
