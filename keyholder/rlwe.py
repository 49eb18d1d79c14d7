"""The secret half of the suite ``shared_key_rlwe`` (encryption.rlwe): key, errors, the product.

The product c1 s over Z[X]/(X^N + 1) mod 2^64 is computed by one complex FFT of length N. A word a
is split as l + 2^32 h with l, h in [-2^31, 2^31); x_j = (l_j + i h_j) w^j with w = exp(i pi / N)
turns the negacyclic product into a cyclic one, and because s is real the real and the imaginary
part of the result are l s and h s.

*It is exact.* With n = log2 N = 12 and doubles of unit roundoff u = 2^-53, each entry of an
FFT-based product of x and y is off by at most |x| |y| ((1+u)^(3n) (1+u sqrt 5)^(3n+1) (1+b)^(3n) -
1) for twiddle factors of relative error b (Percival, Rapid multiplication modulo the sum and
difference of highly composite numbers, Math. Comp. 72, 2003, theorem 5.1). Here |x| <= 2^31.5
sqrt(N), |y| <= sqrt(N), b <= u, and weighting both operands and the result adds at most 3 (u sqrt 5
+ b): less than 165 u 2^43.5 < 0.25, so that rounding to the nearest integer gives the product. For
random words the error is about 2^-14.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from encryption import rlwe
from encryption.parallel import each
from encryption.rlwe import RING_DEGREE, RLWEParameters
from encryption.types import Refused
from encryption.wire import (
    Kind,
    Place,
    Words,
    check_count,
    frame,
    pack_bits,
    packed_bytes,
    parse,
    unpack_bits,
)
from keyholder.refusals import DigitOutOfRange, GridCheckFailed
from keyholder.secret_bytes import Readable, random_bytes, wipe

_COINS = np.uint64(2**21 - 1)
_TWIST = np.exp(1j * np.pi * np.arange(RING_DEGREE) / RING_DEGREE)
_UNTWIST = _TWIST.conj()
_FLIP = np.uint64(2**31)


class UnusableSecret(ValueError):
    """Bytes that are no secret key of this suite."""


def new_secret() -> bytearray:
    """A fresh ternary secret, (N,) bytes that stand for -1, 0 and 1 plus 1: uniform, from the
    operating system's randomness, by rejection. The caller wipes it."""
    secret, drawn = bytearray(RING_DEGREE), bytearray(RING_DEGREE)
    filled = 0
    while filled < RING_DEGREE:
        random_bytes(memoryview(drawn))
        for byte in drawn:
            if byte < 255 and filled < RING_DEGREE:  # 255 = 3 * 85: every remainder as often
                secret[filled] = byte % 3
                filled += 1
    wipe(drawn)
    return secret


def errors() -> NDArray[np.int64]:
    """(N,) fresh errors, centred binomial of 42 coins: variance 10.5, never beyond 21.

    The coins are the AES-256 counter stream of a fresh key from the operating system, which no
    other process or thread ever has, forked or not."""
    coins = rlwe.uniform(os.urandom(rlwe.SEED_BYTES))
    heads = np.bitwise_count(coins & _COINS).astype(np.int64)
    return heads - np.bitwise_count((coins >> np.uint64(21)) & _COINS)


class RLWECipher:
    """Symmetric RLWE under one secret; what it decrypts leaves as exact integers or not at all."""

    def __init__(self, secret: Readable, parameters: RLWEParameters) -> None:
        """Raises UnusableSecret."""
        values = np.frombuffer(secret, np.uint8)
        if values.shape != (RING_DEGREE,) or values.max() > 2:
            raise UnusableSecret("the key does not belong to these parameters; copy it again")
        self._parameters = parameters
        self._transform = scipy.fft.fft((values.astype(np.float64) - 1) * _TWIST)

    def __del__(self) -> None:
        if hasattr(self, "_transform"):
            self._transform[:] = 0  # it is the key in another form

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int) -> tuple[bytes, ...]:
        rows = digits.reshape(-1, self._parameters.values_per_block)
        return tuple(each(
            lambda index: self._encrypt(
                rows[index], Place(Kind.FRESH, number, client, index, len(rows))), len(rows)))

    def check_format(self, blocks: Sequence[bytes], count: int, number: int) -> None:
        check_count(blocks, count)
        for index, block in enumerate(blocks):
            self._parse(block, index, count, number)

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        parts = each(lambda index: self._decrypt(blocks[index], index, len(blocks), clients),
                     len(blocks))
        return np.concatenate(parts)

    def _encrypt(self, digits: NDArray[np.int64], place: Place) -> bytes:
        parameters, seed = self._parameters, os.urandom(rlwe.SEED_BYTES)
        body = rlwe.pack_coefficients(digits, parameters) * parameters.step
        body += errors()
        c0 = body.view(np.uint64) + self.product(rlwe.uniform(seed))
        return frame(parameters, place, seed,
                     pack_bits(rlwe.drop(c0, parameters.cut), parameters.kept_bits))

    def _parse(self, block: bytes, index: int, count: int, number: int | None = None
               ) -> tuple[memoryview, memoryview]:
        """Bodies of c0 and c1. Raises Refused."""
        parameters = self._parameters
        c0 = packed_bytes(RING_DEGREE, parameters.kept_bits)
        c1 = packed_bytes(RING_DEGREE, rlwe.MODULUS_BITS - parameters.sum_cut)
        place, body = parse(block, parameters, Kind.SUM, index, count, c0 + c1)
        if number not in (None, place.round):
            raise Refused("a block belongs to another round")
        return body[:c0], body[c0:]

    def _decrypt(self, block: bytes, index: int, count: int, clients: int) -> NDArray[np.int64]:
        parameters, cut = self._parameters, self._parameters.sum_cut
        first, second = self._parse(block, index, count)
        c0 = unpack_bits(first, RING_DEGREE, parameters.kept_bits) << np.uint64(parameters.cut)
        c1 = unpack_bits(second, RING_DEGREE, rlwe.MODULUS_BITS - cut) << np.uint64(cut)
        found = rlwe.unpack_coefficients((c0 - self.product(c1)).view(np.int64), parameters)
        if not found.distance <= parameters.grid_bound(clients):
            raise GridCheckFailed("a coefficient is off the integer grid")
        if not found.in_range:
            raise DigitOutOfRange("a digit is out of range")
        return found.digits

    def product(self, words: Words) -> Words:
        """(N,) words times the secret, negacyclic, mod 2^64. Exact, as derived above."""
        parts = ((words + _FLIP) ^ _FLIP).view("<i4")  # l and h of each word, in turn
        numbers = parts.astype(np.float64).view(np.complex128)
        numbers *= _TWIST
        numbers = scipy.fft.fft(numbers, overwrite_x=True)
        numbers *= self._transform
        numbers = scipy.fft.ifft(numbers, overwrite_x=True)
        numbers *= _UNTWIST
        rounded = np.rint(numbers.view(np.float64)).astype(np.int64)
        return (rounded[0::2] + (rounded[1::2] << 32)).view(np.uint64)
