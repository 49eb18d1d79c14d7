"""Linear authentication tags: the sum of tags is the tag of the sum.

tag_k = sum_j r_kj d_j mod p, p = 2^61 - 1, k = 0, 1, 2, over the digits d that the layout covers:
data, the constant and the partner map. The coefficients r come from AES-256 in counter mode under
a key derived from the tag key, the parameters' fingerprint, the run and the round, so every round
has its own and the operator, who lacks the key, sees them as uniform. A word of the stream gives
its low 61 bits (the value p stands for 0: a bias of 2^-61).

Guarantee: whoever turns the digits of an honest sum into other digits, none of them changed by a
multiple of p (they stay below 2^31), and adds any guess to the tags, passes with probability about
p^-3 = 2^-183. Not covered: a partner that tells the operator the key.

Arithmetic: coefficients as four 16-bit limbs, digits as 15 low bits and a signed rest of at most
16 bits, products summed by BLAS in doubles over at most 2^15 digits: below 2^(16 + 16 + 15), exact.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from encryption.control import TAG_BITS, TAGS, ControlLayout
from encryption.types import RoundId
from keyholder.keys import SharedKey

PRIME = 2**TAG_BITS - 1
_CHUNK = 2**15
_LIMB_BITS = 16
_DIGIT_LOW_BITS = 15


def tags(digits: NDArray[np.int64], key: SharedKey, round_id: RoundId) -> tuple[int, ...]:
    """(n,) digits with |d| < 2^31 -> three tags below p."""
    stream = _stream(key, round_id)
    totals = [0] * TAGS
    for start in range(0, len(digits), _CHUNK):
        part = digits[start : start + _CHUNK]
        words = np.frombuffer(stream.update(bytes(8 * TAGS * len(part))), "<u8")
        limbs = (words & np.uint64(PRIME)).view("<u2").reshape(len(part), 4 * TAGS)
        split = np.empty((len(part), 2))
        split[:, 0] = part & (2**_DIGIT_LOW_BITS - 1)
        split[:, 1] = part >> _DIGIT_LOW_BITS
        products = limbs.astype(np.float64).T @ split  # (12, 2), exact integers
        for row, (low, high) in enumerate(products.tolist()):
            tag, limb = divmod(row, 4)
            weighed = int(low) + (int(high) << _DIGIT_LOW_BITS)
            totals[tag] += weighed << (_LIMB_BITS * limb)
    return tuple(total % PRIME for total in totals)


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


def _stream(key: SharedKey, round_id: RoundId):
    run = round_id.run.encode()
    purpose = b"".join((b"tags\0", bytes.fromhex(key.fingerprint), len(run).to_bytes(8, "little"),
                        run, round_id.round.to_bytes(8, "little")))
    # One key for one stream, so the counter may start at zero.
    return Cipher(algorithms.AES256(key.derive(purpose)), modes.CTR(bytes(16))).encryptor()
