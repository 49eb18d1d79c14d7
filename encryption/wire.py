"""Bytes of one block, version 2. No length is ever read from them; all integers little-endian.

==========  ====  =======================================================================
offset      size  content
==========  ====  =======================================================================
0           4     magic ``VEIL``
4           1     version, 2
5           1     kind: 1 fresh ciphertext, 2 summed ciphertext, 3 fresh words, 4 summed words
6           1     suite: 0 plaintext, 1 shared_key (CKKS), 2 shared_key_rlwe
7           1     zero
8           16    first 16 bytes of the parameters' SHA-256 fingerprint
24          4     round
28          4     client: place in the federation's list of partners; 2^32 - 1 in a sum
32          4     index of the block in its update, from 0
36          4     number of blocks of the update
40          32    SHA-256 over bytes 0..39 and the body
72          ...   body
==========  ====  =======================================================================

The digest finds transport damage before a block is added, where it costs one reply; the tags would
find it after opening, where it costs the run. It is no protection against an attacker.

Bodies, N the ring degree:

- kind 1, suite 1: the 64-byte seed of SEAL's Blake2xb generator, which expands to c1; then c0;
- kind 1, suite 2: the 32-byte AES-256 key, then the kept bits of c0; c1 are the bytes of the key's
  counter stream from block number ``index`` N / 2 on, so that an update may use one key throughout;
- kind 2: c0 (suite 2: its kept bits), then c1;
- kind 3: ``values_per_block`` signed 32-bit digits;
- kind 4: as many, of 32 bits where sums over max_clients fit, else of 64 (which of the two follows
  from the parameters).

A polynomial is N numbers of b bits in *planes*: b is written as a sum of distinct powers of two
from 64 down to 1, and for each power w in that order comes a plane with the next w bits of every
number, lowest bits first. Planes of 8 bits and more hold one number after the other; narrower ones
hold 8/w numbers in a byte: byte j holds number j of each of the 8/w equal parts of the plane, the
first part in its lowest bits. So b = 50 gives planes of 32, 16 and 2 bits, and b = 64 is one plane
of 64. N is a multiple of 8.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from encryption.types import Parameters, Refused

MAGIC, VERSION = b"VEIL", 2
HEADER_BYTES = 72
_DIGEST_AT = 40
SUM_CLIENT = 2**32 - 1
Words = NDArray[np.uint64]
_PLANES = (64, 32, 16, 8, 4, 2, 1)
_DTYPES = {64: np.dtype("<u8"), 32: np.dtype("<u4"), 16: np.dtype("<u2"), 8: np.dtype("u1")}


class Kind(IntEnum):
    FRESH = 1
    SUM = 2
    FRESH_WORDS = 3
    SUM_WORDS = 4


@dataclass(frozen=True)
class Place:
    """Where a block belongs. ``client``: index in the federation's list, or SUM_CLIENT."""

    kind: Kind
    round: int
    client: int
    index: int
    count: int

    @classmethod
    def of_sum(cls, kind: Kind, number: int, index: int, count: int) -> Place:
        return cls(kind, number, SUM_CLIENT, index, count)


@dataclass(frozen=True)
class Part:
    """Blocks of an update from number ``first`` on, of ``count`` in all (0: these are all)."""

    first: int
    count: int


WHOLE = Part(0, 0)


def frame(parameters: Parameters, place: Place, *body: bytes | memoryview) -> bytes:
    """One block: header and body."""
    start = _start(parameters, place)
    return b"".join((start, _digest(start, body), *body))


def parse(block: bytes, parameters: Parameters, kind: Kind, index: int, count: int,
          body_bytes: int) -> tuple[Place, memoryview]:
    """The place and the body of a block that must be of this kind and size, at this index of an
    update of ``count`` blocks. Raises Refused."""
    if not isinstance(block, bytes):
        raise Refused("a block is not bytes")
    if len(block) != HEADER_BYTES + body_bytes:
        raise Refused("a block of another size than its parameters give")
    number, client = _ORIGIN.unpack_from(block, 24)
    if (client == SUM_CLIENT) != (kind in (Kind.SUM, Kind.SUM_WORDS)):
        raise Refused("a block has another client than expected")
    place = Place(kind, number, client, index, count)
    start, body = _start(parameters, place), memoryview(block)[HEADER_BYTES:]
    if block[:_DIGEST_AT] != start:
        different = next(name for name, first, last in _FIELDS
                         if block[first:last] != start[first:last])
        raise Refused(f"a block has another {different} than expected")
    if block[_DIGEST_AT:HEADER_BYTES] != _digest(start, (body,)):
        raise Refused("a block was damaged on its way")
    return place, body


_FIELDS = (("magic", 0, 4), ("format version", 4, 5), ("kind", 5, 6), ("suite", 6, 8),
           ("parameter fingerprint", 8, 24), ("place in its update", 32, 40))
_START, _ORIGIN = struct.Struct("<4s4B16s4I"), struct.Struct("<2I")


def _start(parameters: Parameters, place: Place) -> bytes:
    return _START.pack(MAGIC, VERSION, place.kind, parameters.suite_code, 0,
                       bytes.fromhex(parameters.fingerprint)[:16], place.round, place.client,
                       place.index, place.count)


def _digest(start: bytes, body: Sequence[bytes | memoryview]) -> bytes:
    state = hashlib.sha256(start)
    for part in body:
        state.update(part)
    return state.digest()


def check_count(blocks: Sequence[bytes], count: int) -> None:
    """Raises Refused unless there are exactly ``count`` blocks."""
    if len(blocks) != count:
        raise Refused("an update of another number of blocks than agreed")


def packed_bytes(count: int, bits: int) -> int:
    """Size of ``count`` numbers of ``bits`` bits, count a multiple of 8."""
    return count * bits // 8


def pack_bits(rows: Words, bits: int) -> list[bytes]:
    """(m, n) numbers below 2^bits, n a multiple of 8, 1 <= bits <= 64 -> m times n bits / 8 bytes.

    Many rows at once are faster, and leave Python's lock to other threads meanwhile."""
    parts: list[NDArray[np.uint8]] = []
    for width, shift in _planes(bits):
        part = rows >> np.uint64(shift) if shift else rows
        if width >= 8:
            parts.append(np.ascontiguousarray(part.astype(_DTYPES[width])).view(np.uint8))
            continue
        pieces = (part.astype(np.uint8) & np.uint8(2**width - 1)).reshape(len(rows), 8 // width, -1)
        packed = pieces[:, 0].copy()
        for place in range(1, 8 // width):
            packed |= pieces[:, place] << np.uint8(place * width)
        parts.append(packed)
    return [row.tobytes() for row in np.concatenate(parts, axis=1)]


def unpack_bits(bodies: Sequence[bytes | memoryview], count: int, bits: int) -> Words:
    """Inverse of :func:`pack_bits`: (m, count) numbers, each below 2^bits whatever the bytes."""
    packed = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
    numbers, at = np.zeros((len(bodies), count), np.uint64), 0
    for width, shift in _planes(bits):
        size = count * width // 8
        plane = packed[:, at : at + size]
        at += size
        if width >= 8:
            part = np.ascontiguousarray(plane).view(_DTYPES[width]).astype(np.uint64)
        else:
            part = np.concatenate([(plane >> np.uint8(place * width)) & np.uint8(2**width - 1)
                                   for place in range(8 // width)], axis=1).astype(np.uint64)
        numbers |= part << np.uint64(shift) if shift else part
    return numbers


def _planes(bits: int) -> Iterator[tuple[int, int]]:
    """(width, shift of its lowest bit) of each plane."""
    shift = 0
    for width in _PLANES:
        if bits & width:
            yield width, shift
            shift += width
