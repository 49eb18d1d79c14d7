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
import threading
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from encryption import rlwe
from encryption.rlwe import BATCH, RING_DEGREE, RLWEParameters
from encryption.types import Refused
from encryption.wire import (
    WHOLE,
    Kind,
    Part,
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


class _Room(threading.local):
    """Memory that a thread uses again and again."""

    def __init__(self) -> None:
        self.public, self.coins = rlwe.Stream(), rlwe.Stream()
        self.numbers = np.empty((BATCH, RING_DEGREE), np.complex128)
        self.high = np.empty((BATCH, RING_DEGREE), np.int64)


class RLWECipher:
    """Symmetric RLWE under one secret; what it decrypts leaves as exact integers or not at all.

    It works BATCH blocks at a time in memory of its own, each thread in another: in shared memory
    one update's public polynomial could come under another's noise."""

    def __init__(self, secret: Readable, parameters: RLWEParameters) -> None:
        """Raises UnusableSecret."""
        values = np.frombuffer(secret, np.uint8)
        if values.shape != (RING_DEGREE,) or values.max() > 2:
            raise UnusableSecret("the key does not belong to these parameters; copy it again")
        self._parameters = parameters
        weighted = np.empty(RING_DEGREE, np.complex128)
        weighted[:] = values
        weighted -= 1
        weighted *= _TWIST
        self._transform = scipy.fft.fft(weighted)
        weighted[:] = 0  # it is the key in another form
        self._room = _Room()

    def __del__(self) -> None:
        if hasattr(self, "_transform"):
            self._transform[:] = 0  # so is this
        if hasattr(self, "_room"):
            self._room.coins.uniform(bytes(rlwe.SEED_BYTES), 0, BATCH)

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int, part: Part = WHOLE
                ) -> tuple[bytes, ...]:
        parameters, seed, blocks = self._parameters, os.urandom(rlwe.SEED_BYTES), []
        sizes = parameters.block_values(len(digits))
        ends = np.cumsum(sizes)
        for batch in rlwe.batches(sizes):
            count = batch.stop - batch.start
            rows = digits[ends[batch.start] - sizes[batch.start] : ends[batch.stop - 1]]
            c0 = rlwe.pack_coefficients(rows.reshape(count, -1), parameters)
            width = c0.shape[1]
            c0 *= parameters.step
            c0 += self.errors(count)[:, :width]
            words = c0.view(np.uint64)
            first = part.first + batch.start
            words += self.product(self._room.public.uniform(seed, first, count))[:, :width]
            bodies = pack_bits(rlwe.drop(words, parameters.cut), parameters.kept_bits)
            for index, body in enumerate(bodies, first):
                place = Place(Kind.FRESH, number, client, index, part.count or len(sizes))
                blocks.append(frame(parameters, place, seed, body))
        return tuple(blocks)

    def parse(self, blocks: Sequence[bytes], sizes: Sequence[int], number: int
              ) -> list[memoryview]:
        check_count(blocks, len(sizes))
        parsed = []
        for index, block in enumerate(blocks):
            size = self._c0_bytes(sizes[index]) + packed_bytes(RING_DEGREE, self._c1_bits)
            place, body = parse(block, self._parameters, Kind.SUM, index, len(sizes), size)
            if place.round != number:
                raise Refused("a block belongs to another round")
            if not any(body[self._c0_bytes(sizes[index]) :]):  # c1: the same under every key
                raise Refused("a block is a message in the clear, no sum of ciphertexts")
            parsed.append(body)
        return parsed

    def decrypt(self, parsed: Sequence[memoryview], sizes: Sequence[int], clients: int
                ) -> NDArray[np.int64]:
        return np.concatenate([self._decrypt(parsed[batch], sizes[batch.start], clients)
                               for batch in rlwe.batches(sizes)])

    @property
    def _c1_bits(self) -> int:
        return rlwe.MODULUS_BITS - self._parameters.sum_cut

    def _c0_bytes(self, values: int) -> int:
        return packed_bytes(self._parameters.width(values), self._parameters.kept_bits)

    def errors(self, count: int) -> NDArray[np.int8]:
        """(count, N) fresh errors, centred binomial of 42 coins: variance 10.5, never beyond 21.

        The coins are the AES-256 counter stream of a fresh key from the operating system, which
        no other process or thread ever has, forked or not."""
        room = self._room
        coins = room.coins.uniform(os.urandom(rlwe.SEED_BYTES), 0, count)
        others = np.right_shift(coins, np.uint64(21), out=room.high[:count].view(np.uint64))
        coins &= _COINS
        others &= _COINS
        return np.bitwise_count(coins).view(np.int8) - np.bitwise_count(others).view(np.int8)

    def product(self, words: Words) -> Words:
        """(m, N) words times the secret, negacyclic, mod 2^64, in place of the words, m at most
        BATCH. Exact, as derived above."""
        words += _FLIP
        words ^= _FLIP
        numbers, high = self._room.numbers[: len(words)], self._room.high[: len(words)]
        numbers.view(np.float64)[:] = words.view("<i4")  # l and h of each word, in turn
        numbers *= _TWIST
        numbers = scipy.fft.fft(numbers, overwrite_x=True)
        numbers *= self._transform
        numbers = scipy.fft.ifft(numbers, overwrite_x=True)
        numbers *= _UNTWIST
        parts = numbers.view(np.float64)
        np.rint(parts, out=parts)
        np.copyto(words.view(np.int64), parts[:, 0::2], casting="unsafe")
        np.copyto(high, parts[:, 1::2], casting="unsafe")
        high <<= 32
        words += high.view(np.uint64)
        return words

    def _decrypt(self, bodies: Sequence[memoryview], values: int, clients: int
                 ) -> NDArray[np.int64]:
        parameters, width = self._parameters, self._parameters.width(values)
        at = self._c0_bytes(values)
        c0 = unpack_bits([body[:at] for body in bodies], width, parameters.kept_bits)
        c1 = unpack_bits([body[at:] for body in bodies], RING_DEGREE, self._c1_bits)
        c0 <<= np.uint64(parameters.cut)
        c1 <<= np.uint64(parameters.sum_cut)
        c0 -= self.product(c1)[:, :width]
        found = rlwe.unpack_coefficients(c0.view(np.int64), parameters)
        if not found.distance <= parameters.grid_bound(clients):
            raise GridCheckFailed("a coefficient is off the integer grid")
        if not found.in_range:
            raise DigitOutOfRange("a digit is out of range")
        return found.digits.reshape(-1)
