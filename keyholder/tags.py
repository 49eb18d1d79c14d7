"""Linear authentication tags: the sum of tags is the tag of the sum.

tag_k = sum_j r_(j+k) d_j mod p, p = 2^61 - 1, k = 0, 1, 2, over the digits d that the layout
covers: data, the constant and the partner map. The coefficients r come from AES-256 in counter mode
under a key derived from the tag key, the parameters' fingerprint, the run and the round, so every
round has its own and the operator, who lacks the key, sees them as uniform: a little-endian word
each, of which the low 61 bits count (the value p stands for 0: a bias of 2^-61).

The three tags share one sequence of coefficients, shifted (Toeplitz hashing; Krawczyk, LFSR-based
hashing and authentication, CRYPTO '94, section 3): for d not 0 mod p, the map r -> (tag_0, tag_1,
tag_2) has rank 3, because with j the last place where d_j is not 0, r_(j+k) enters tag_k and no
earlier tag. So the tags are uniform over p^3 values, as with three sequences, at a third of the
cost.

Guarantee: whoever changes some digits of an honest sum, none of them by a multiple of p (digits
of sums stay below 2^48, ``encryption.request``), and adds any guess to the tags, passes with
probability about p^-3 = 2^-183. Not covered: a partner that tells the operator the key, and the
limbs themselves, which may change only in ways that leave each tag as it is.

Arithmetic: products of a 32-bit or 29-bit limb of r with a piece of at most 17 bits of a digit (of
which there are as many as it needs), summed over 2^13 digits, stay below 2^62: int64 is exact, and
no BLAS with its threads is involved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from encryption.control import TAG_BITS, TAGS, ControlLayout
from encryption.types import RoundId
from keyholder.keys import SharedKey

PRIME = 2**TAG_BITS - 1
_STRETCH = 2**13
_PIECE_BITS = 16
_ZEROS = memoryview(bytes(8 * (_STRETCH + TAGS - 1)))


def tags(digits: NDArray[np.int64], key: SharedKey, round_id: RoundId, first: int = 0
         ) -> tuple[int, ...]:
    """(n,) digits with |d| < 2^60 -> three tags below p. Of the digits of an update from number
    ``first`` (even) on: what they add to its tags, see :func:`add`."""
    secret = _stream_key(key, round_id)
    found = (_stretch_tags(digits[at : at + _STRETCH], secret, first + at)
             for at in range(0, len(digits), _STRETCH))
    return add((0,) * TAGS, *found)


def add(*found: Sequence[int]) -> tuple[int, ...]:
    """What parts of an update add to its tags -> its tags."""
    return tuple(sum(each) % PRIME for each in zip(*found, strict=True))


def _stretch_tags(stretch: NDArray[np.int64], secret: bytes, first: int) -> list[int]:
    """What the stretch of digits from number ``first`` on adds to each tag."""
    limbs = _coefficients(secret, first, len(stretch) + TAGS - 1).view("<u4").reshape(-1, 2)
    pieces, totals = _pieces(stretch), [0] * TAGS
    for limb in range(2):
        column = limbs[:, limb].astype(np.int64)
        for tag in range(TAGS):
            shifted = column[tag : tag + len(stretch)]
            totals[tag] += sum(int(np.dot(shifted, piece)) << (32 * limb + shift)
                               for shift, piece in pieces)
    return totals


def _coefficients(secret: bytes, first: int, count: int) -> NDArray[np.uint64]:
    """(count,) coefficients r from number ``first``, which is even, on."""
    counter = (first // 2).to_bytes(16, "big")
    stream = Cipher(algorithms.AES256(secret), modes.CTR(counter)).encryptor()
    return np.frombuffer(stream.update(_ZEROS[: 8 * count]), "<u8") & np.uint64(PRIME)


def _pieces(digits: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(shift, piece) with digits = sum of piece * 2^shift and |piece| <= 2^17."""
    found, shift = [], 0
    while int(digits.min()) < -(2**17) or int(digits.max()) > 2**17:
        found.append((shift, digits & (2**_PIECE_BITS - 1)))
        digits, shift = digits >> _PIECE_BITS, shift + _PIECE_BITS
    return [*found, (shift, digits)]


def to_digits(values: tuple[int, ...], layout: ControlLayout) -> NDArray[np.int64]:
    """Three tags -> signed limb digits, in the layout's order."""
    bits, half = layout.parameters.bits, 1 << (layout.parameters.bits - 1)
    limbs = [((value >> (bits * i)) & ((1 << bits) - 1)) - half
             for value in values for i in range(layout.limbs_per_tag)]
    return np.array(limbs, np.int64)


def from_digits(sums: NDArray[np.int64], clients: int, layout: ControlLayout) -> tuple[int, ...]:
    """Sums of ``clients`` tags' limb digits -> the sums of the tags mod p."""
    bits, offset = layout.parameters.bits, clients << (layout.parameters.bits - 1)
    per_tag = sums.reshape(TAGS, layout.limbs_per_tag).tolist()
    return tuple(sum((limb + offset) << (bits * i) for i, limb in enumerate(limbs)) % PRIME
                 for limbs in per_tag)


def _stream_key(key: SharedKey, round_id: RoundId) -> bytes:
    """One key for one stream, so its counter may start at zero."""
    run = round_id.run.encode()
    return key.derive(b"".join((
        b"tags\0", bytes.fromhex(key.fingerprint), len(run).to_bytes(8, "little"), run,
        round_id.round.to_bytes(8, "little"))))
