"""The suite ``shared_key_rlwe``: symmetric RLWE with packed coefficients, and its checks.

CKKS without its encoder. A ciphertext of the integer polynomial m over Z[X]/(X^N + 1) is

    c1 = a uniform mod q = 2^64,    c0 = a s + e + D m mod q  (low bits dropped),

with a ternary secret s, a centred binomial error e and the grid step D. c0 - c1 s is D m plus a
small error, sums of ciphertexts are ciphertexts of sums, and rounding to multiples of D is exact.
The differences to :class:`encryption.parameters.CKKSParameters` are these.

- Digits lie in coefficients, not in slots. The embedding of CKKS spreads an error of variance V
  over a slot as V N / 2, which costs log2 sqrt(N/2) = 5.5 bits of every number, and its encoder
  computes in doubles. Nothing is multiplied here, so the embedding buys nothing.
- q is a power of two, so that sums wrap around in machine words and a uniform polynomial is
  a stream of random bytes. The hardness of RLWE does not depend on the arithmetic form of q
  (modulus switching: Langlois and Stehle, eprint 2012/090, for modules; used so in TFHE, eprint
  2018/421, and Saber, eprint 2018/230).
- c0 is sent without its ``cut`` low bits, rounded: they would hold little but noise.
- The last block of an update sends only as many coefficients of c0 as it has digits for: each
  stands for itself, and c1 comes from its seed. So a small model is a small message.

Precision. In a sum over K clients a coefficient is off the grid by the errors of K clients, of
variance V_e = 10.5 each (centred binomial of 42 coins, sigma 3.24, above the 3.19 of the
homomorphicencryption.org standard), by K roundings of c0 to multiples of 2^cut, and where the sum's
c1 is sent without its ``sum_cut`` low bits, by N such roundings, each times a coefficient of s.
What is rounded is uniform, and halves go to the even side, so that a rounding of c bits is off by
-2^(c-1) .. 2^(c-1), the two ends half as often as the rest: mean 0, variance R(c) = (4^c + 2) / 12
(rounding halves up would leave a mean of 1/2, which s would add up). With R(0) = 0,

    V = K (V_e + R(cut)) + N R(sum_cut).

All terms are sums of independent symmetric variables and sub-Gaussian with their own variance, so
``encryption.precision``'s tail bound applies: over a run some coefficient lies further than t
sqrt(V) from the grid with probability at most 2^-40, t = 10.06. Nothing here is coherent: identical
plaintexts add no error, because there is no encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import tenseal.sealapi as seal
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from encryption.precision import ERROR_VARIANCE, tail_factor
from encryption.request import ImpossibleParameters, check_request, fingerprint_of
from encryption.wire import Words

RING_DEGREE = 4096
MODULUS_BITS = 64
SEED_BYTES = 32
BATCH = 8
"""Blocks worked on at once: enough that numpy's calls cost little, few enough that their arrays
stay in the second-level cache."""


@dataclass(frozen=True)
class RLWEParameters:
    """Ring degree 4096, modulus 2^64. Digit ``i`` of coefficient j has weight ``radix``^i.

    Guarantees of every instance (``ImpossibleParameters`` otherwise):

    1. security: 64 bits of modulus are of SEAL's 192-bit class at this degree (its table is the
       homomorphicencryption.org standard's, ternary secret);
    2. capacity: no coefficient of a sum of max_clients updates wraps around q;
    3. exactness: over a whole run some coefficient rounds to a wrong grid point with probability
       at most 2^-40 (above);
    4. no doubles carry data; the one product that uses them, c1 s, is exact (keyholder.rlwe).
    """

    suite: ClassVar[str] = "shared_key_rlwe"
    suite_code: ClassVar[int] = 2
    ring_degree: ClassVar[int] = RING_DEGREE
    max_clients: int
    bits: int
    digits_per_coefficient: int

    @classmethod
    def for_cohort(cls, max_clients: int, bits: int) -> RLWEParameters:
        """The parameters of least bytes per value. Raises ImpossibleParameters."""
        check_request(max_clients, bits)
        possible: list[RLWEParameters] = []
        for digits in range(1, 1 + MODULUS_BITS // bits):
            try:
                possible.append(cls(max_clients, bits, digits))
            except ImpossibleParameters:
                break
        if not possible:
            return cls(max_clients, bits, 1)  # says why
        return min(possible, key=lambda found: found.bytes_per_value)

    def __post_init__(self) -> None:
        check_request(self.max_clients, self.bits)
        what = (f"{self.digits_per_coefficient} x {self.bits} bits for {self.max_clients} clients "
                f"in {MODULUS_BITS} bits")
        advice = "use fewer encryption.bits or fewer clients"
        if self.digits_per_coefficient < 1:
            raise ImpossibleParameters("a coefficient holds at least 1 digit")
        if self.step < 2:
            raise ImpossibleParameters(f"{what}: sums would wrap around the modulus; {advice}")
        if not self._exact(0, 0):
            raise ImpossibleParameters(f"{what}: noise would reach the grid; {advice}")

    @cached_property
    def security_bits(self) -> int:
        """256, 192 or 128, by SEAL's table for this degree."""
        levels = {256: seal.SEC_LEVEL_TYPE.TC256, 192: seal.SEC_LEVEL_TYPE.TC192,
                  128: seal.SEC_LEVEL_TYPE.TC128}
        return next(bits for bits, level in levels.items()
                    if seal.CoeffModulus.MaxBitCount(RING_DEGREE, level) >= MODULUS_BITS)

    @cached_property
    def radix(self) -> int:
        """B: weight of a digit over the one before it; even."""
        return self.max_clients << self.bits

    @cached_property
    def magnitude(self) -> int:
        """A: largest absolute value of a coefficient of a sum, B/2 (1 + B + ... + B^(m-1))."""
        return self.radix // 2 * sum(self.radix**i for i in range(self.digits_per_coefficient))

    @cached_property
    def step(self) -> int:
        """D, the largest for which (A + 1/2) D stays below q/2: errors stay below D/2 (check 3)."""
        return 2 ** (MODULUS_BITS - 1) // (self.magnitude + 1)

    @cached_property
    def cut(self) -> int:
        """Low bits of c0 that are not sent: as many as check 3 allows."""
        return next(cut for cut in range(MODULUS_BITS - 2, -1, -1) if self._exact(cut, 0))

    @cached_property
    def sum_cut(self) -> int:
        """Low bits of a sum's c1 that are not sent to the opener."""
        return next(cut for cut in range(MODULUS_BITS - 2, -1, -1) if self._exact(self.cut, cut))

    @property
    def kept_bits(self) -> int:
        """Bits of a coefficient of c0 on the wire."""
        return MODULUS_BITS - self.cut

    @property
    def values_per_block(self) -> int:
        return RING_DEGREE * self.digits_per_coefficient

    @property
    def bytes_per_value(self) -> float:
        """Of a full block's, on the way to the server."""
        return self.kept_bits / 8 / self.digits_per_coefficient

    def block_values(self, digits: int) -> tuple[int, ...]:
        """All but the last are full; the last has a multiple of 8 coefficients."""
        full, rest = divmod(digits, self.values_per_block)
        width = min(RING_DEGREE, 8 * -(-rest // (8 * self.digits_per_coefficient)))
        last = (width * self.digits_per_coefficient,) if rest else ()
        return (self.values_per_block,) * full + last

    def width(self, values: int) -> int:
        """Coefficients of c0 in a block of so many values."""
        return values // self.digits_per_coefficient

    def predicted_deviation(self, clients: int) -> float:
        """Standard deviation of a coefficient from the grid in a sum over ``clients``, in steps."""
        return math.sqrt(_variance(clients, self.cut, self.sum_cut)) / self.step

    def grid_bound(self, clients: int) -> float:
        """Distance from the grid, in grid steps, that honest sums keep but for 2^-40 a run."""
        return tail_factor() * self.predicted_deviation(clients)

    def _exact(self, cut: int, sum_cut: int) -> bool:
        return tail_factor() * math.sqrt(_variance(self.max_clients, cut, sum_cut)) < self.step / 2

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(
            suite=self.suite, max_clients=self.max_clients, bits=self.bits,
            ring_degree=RING_DEGREE, modulus_bits=MODULUS_BITS, radix=self.radix,
            digits_per_coefficient=self.digits_per_coefficient, step=self.step, cut=self.cut,
            sum_cut=self.sum_cut)


def _variance(clients: int, cut: int, sum_cut: int) -> float:
    """V, in units of the modulus; a cut of 0 bits rounds nothing."""
    return (clients * (ERROR_VARIANCE + _rounding(cut)) + RING_DEGREE * _rounding(sum_cut))


def _rounding(cut: int) -> float:
    """R."""
    return (4.0**cut + 2) / 12 if cut else 0.0


class Stream:
    """Room for uniform words of up to ``count`` polynomials, used again and again: mapping fresh
    memory would take longer than filling it."""

    def __init__(self, count: int = BATCH) -> None:
        # The cipher may write up to a block less a byte beyond its input.
        self._room = bytearray(8 * RING_DEGREE * count + 16)
        self._words = np.frombuffer(self._room, "<u8", RING_DEGREE * count).reshape(count, -1)

    def uniform(self, seed: bytes | memoryview, first: int, count: int) -> Words:
        """32 bytes -> (count, N) uniform words, valid until the next call: the polynomials c1 of
        the blocks from number ``first`` on, which are the AES-256 counter stream of the seed from
        counter N first / 2 on.

        Every update has a fresh seed, so no part of a stream repeats. (AES as the expander of a
        public polynomial: as in the 90s variant of Kyber, round 3 submission, section 1.4.)"""
        counter = (first * 8 * RING_DEGREE // 16).to_bytes(16, "big")
        cipher = Cipher(algorithms.AES256(bytes(seed)), modes.CTR(counter)).encryptor()
        cipher.update_into(_ZEROS[: 8 * RING_DEGREE * count], self._room)
        return self._words[:count]


_ZEROS = memoryview(bytes(8 * RING_DEGREE * BATCH))


def drop(words: Words, cut: int) -> Words:
    """Round to the nearest multiple of 2^cut, the even one of two, mod 2^64, and divide by it, in
    place."""
    if cut:
        odd = words >> np.uint64(cut)
        odd &= np.uint64(1)
        words += odd
        words += np.uint64((1 << (cut - 1)) - 1)
        words >>= np.uint64(cut)
    return words


def pack_coefficients(digits: NDArray[np.int64], parameters: RLWEParameters) -> NDArray[np.int64]:
    """(blocks, values) signed digits of one client -> (blocks, width) coefficients m. Digit number
    i width + j of a block has weight B^i in coefficient j."""
    places = digits.reshape(len(digits), parameters.digits_per_coefficient, -1)
    packed = places[:, -1].copy()
    for place in range(parameters.digits_per_coefficient - 2, -1, -1):
        packed *= parameters.radix
        packed += places[:, place]
    return packed


@dataclass(frozen=True)
class Coefficients:
    """What a decrypted sum holds. ``digits``: (blocks, values), meaningful only if ``in_range``.
    ``distance``: largest distance of a coefficient from the grid, in grid steps."""

    digits: NDArray[np.int64]
    distance: float
    in_range: bool


def unpack_coefficients(phase: NDArray[np.int64], parameters: RLWEParameters) -> Coefficients:
    """(blocks, width) D m plus error of a sum over at most max_clients -> its digit sums. Never
    raises."""
    step, radix = parameters.step, parameters.radix
    grid = phase // step
    rest = phase - grid * step
    up = rest > step // 2
    grid += up
    distance = float(np.abs(rest - up * step).max()) / step
    outside = bool(np.any(np.abs(grid) > parameters.magnitude))
    digits = np.empty((len(phase), parameters.digits_per_coefficient, phase.shape[1]), np.int64)
    # Adding B/2 to every digit makes them all non-negative, so that plain division finds them.
    rest = np.clip(grid, -parameters.magnitude, parameters.magnitude) + parameters.magnitude
    for place in range(parameters.digits_per_coefficient):
        higher = rest // radix
        np.subtract(rest, higher * radix + radix // 2, out=digits[:, place])
        rest = higher
    return Coefficients(digits.reshape(len(phase), -1), distance, not outside and not rest.any())


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """The indexes of blocks of these sizes, up to BATCH of one size at a time."""
    start = 0
    while start < len(sizes):
        stop = start + 1
        while stop < min(len(sizes), start + BATCH) and sizes[stop] == sizes[start]:
            stop += 1
        yield slice(start, stop)
        start = stop
