"""Bytes of one block, version 1. No length is ever read from them; all integers little-endian.

==========  ====  =======================================================================
offset      size  content
==========  ====  =======================================================================
0           4     magic ``VEIL``
4           1     version, 1
5           1     kind: 1 fresh ciphertext, 2 summed ciphertext, 3 fresh words, 4 summed words
6           2     zero
8           16    first 16 bytes of the parameters' SHA-256 fingerprint
24          4     index of the block in its update, from 0
28          4     number of blocks of the update
32          ...   body
==========  ====  =======================================================================

Bodies, N the ring degree, b the bits of the prime:

- kind 1: the 64-byte seed of SEAL's Blake2xb generator, which expands to c1; then c0;
- kind 2: c0, then c1;
- kinds 3 and 4: ``values_per_block`` signed 32-bit digits.

A polynomial is its N residues in the order SEAL keeps them (transformed, NTT), each below the
prime, in N b / 8 bytes: residues 2j and 2j+1 make the integer r(2j) + 2^b r(2j+1), written in b/4
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from encryption.parameters import CKKSParameters
from encryption.types import Parameters, Refused

MAGIC, VERSION = b"VEIL", 1
HEADER_BYTES, SEED_BYTES = 32, 64
Words = NDArray[np.uint64]


class Kind(IntEnum):
    FRESH = 1
    SUM = 2
    FRESH_WORDS = 3
    SUM_WORDS = 4


def header(parameters: Parameters, kind: Kind, index: int, count: int) -> bytes:
    """The 32 bytes that a block with this place must start with."""
    return b"".join((
        MAGIC, bytes((VERSION, kind, 0, 0)), bytes.fromhex(parameters.fingerprint)[:16],
        index.to_bytes(4, "little"), count.to_bytes(4, "little")))


def body_bytes(parameters: Parameters, kind: Kind) -> int:
    """Exact size of a body."""
    if isinstance(parameters, CKKSParameters):
        size = parameters.bytes_per_polynomial
        return {Kind.FRESH: SEED_BYTES + size, Kind.SUM: 2 * size}[kind]
    return 4 * parameters.values_per_block


def check_count(blocks: Sequence[bytes], count: int) -> None:
    """Raises Refused unless there are exactly ``count`` blocks."""
    if len(blocks) != count:
        raise Refused("an update of another number of blocks than agreed")


def parse_body(block: bytes, parameters: Parameters, kind: Kind, index: int,
               count: int) -> memoryview:
    """The body of a block that must be of this kind at this place. Raises Refused."""
    if not isinstance(block, bytes):
        raise Refused("a block is not bytes")
    if len(block) != HEADER_BYTES + body_bytes(parameters, kind):
        raise Refused("a block of another size than its parameters give")
    _check_header(block[:HEADER_BYTES], header(parameters, kind, index, count))
    return memoryview(block)[HEADER_BYTES:]


def _check_header(got: bytes, expected: bytes) -> None:
    fields = (("magic", 0, 4), ("format version", 4, 5), ("kind", 5, 8),
              ("parameter fingerprint", 8, 24), ("place in its update", 24, 32))
    for name, start, stop in fields:
        if got[start:stop] != expected[start:stop]:
            raise Refused(f"a block has another {name} than expected")


def pack_residues(residues: Words, prime_bits: int) -> bytes:
    """(n,) residues below 2^prime_bits, n even, 32 < prime_bits < 64 -> n prime_bits / 8 bytes."""
    even, odd = residues[0::2], residues[1::2]
    pairs = np.empty((len(even), prime_bits // 4), np.uint8)
    low = even | (odd << np.uint64(prime_bits))
    high = odd >> np.uint64(64 - prime_bits)
    pairs[:, :8] = low.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)
    rest = prime_bits // 4 - 8
    pairs[:, 8:] = high.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :rest]
    return pairs.tobytes()


def unpack_residues(body: bytes | memoryview, prime_bits: int, prime: int) -> Words:
    """n * prime_bits / 8 bytes -> (n,) residues. Raises Refused if one is not below ``prime``."""
    pairs = np.frombuffer(body, np.uint8).reshape(-1, prime_bits // 4)
    low = np.ascontiguousarray(pairs[:, :8]).view("<u8").reshape(-1)
    wide = np.zeros((len(pairs), 8), np.uint8)
    wide[:, : prime_bits // 4 - 8] = pairs[:, 8:]
    high = wide.view("<u8").reshape(-1)
    residues = np.empty(2 * len(pairs), np.uint64)
    residues[0::2] = low & np.uint64(2**prime_bits - 1)
    residues[1::2] = (low >> np.uint64(prime_bits)) | (high << np.uint64(64 - prime_bits))
    if residues.size and int(residues.max()) >= prime:
        raise Refused("a block holds a residue that is not below the prime")
    return residues
