"""Checked parameters of the suite ``shared_key``: CKKS in SEAL, digits in the slots.

How a block holds values: N/2 complex slots, two reals a slot, ``digits_per_real`` = m signed
digits a real, so N * m values. A real is sum_i d_i B^i with the radix B = max_clients * 2^bits:
a digit of one client lies in [-2^(bits-1), 2^(bits-1) - 1], so a digit of a sum over at most
max_clients lies in [-B/2, B/2) and the sum of reals gives back every digit sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import tenseal.sealapi as seal

from encryption.precision import grid_bound, predicted_deviation
from encryption.request import (
    ImpossibleParameters,
    check_request,
    fingerprint_of,
    full_blocks,
)

RING_DEGREE = 4096
PRIME_BITS = (60, 56, 52, 48, 44, 40)
"""Sizes tried."""
_ENCODER_BITS = 52


@dataclass(frozen=True)
class CKKSParameters:
    """One prime, ring degree 4096, symmetric seeded CKKS.

    Guarantees of every instance (``ImpossibleParameters`` otherwise):

    1. security: prime_bits <= SEAL's table (homomorphicencryption.org standard, ternary secret)
       at 128 bits; :attr:`security_bits` reports the class reached;
    2. capacity: no coefficient of a sum of max_clients updates wraps around q;
    3. exactness: over a whole run some real rounds to a wrong grid point with probability at
       most 2^-40, identical plaintexts included (derived in :mod:`encryption.precision`);
    4. doubles: a real has at most 52 bits, and the transforms' error is part of check 3.
    """

    suite: ClassVar[str] = "shared_key"
    suite_code: ClassVar[int] = 1
    ring_degree: ClassVar[int] = RING_DEGREE
    max_clients: int
    bits: int
    prime_bits: int
    digits_per_real: int

    @classmethod
    def for_cohort(cls, max_clients: int, bits: int) -> CKKSParameters:
        """The parameters of least bytes per value that pass all checks.

        Among equals in :attr:`bytes_per_value` the smaller prime wins.
        """
        check_request(max_clients, bits)
        best: CKKSParameters | None = None
        reason = ""
        for prime_bits in PRIME_BITS:
            for digits in range(1, 1 + prime_bits // bits):
                try:
                    found = cls(max_clients, bits, prime_bits, digits)
                except ImpossibleParameters as error:
                    reason = reason or str(error)
                    break
                if best is None or found._cost <= best._cost:
                    best = found
        if best is None:
            raise ImpossibleParameters(reason)
        return best

    def __post_init__(self) -> None:
        check_request(self.max_clients, self.bits)
        if self.prime_bits not in PRIME_BITS or self.digits_per_real < 1:
            raise ImpossibleParameters(f"choose prime_bits from {PRIME_BITS} and at least 1 digit")
        what = (f"{self.digits_per_real} x {self.bits} bits for {self.max_clients} clients in a "
                f"prime of {self.prime_bits} bits")
        advice = "use fewer encryption.bits or fewer clients"
        if not self.security_bits:
            raise ImpossibleParameters(f"{what}: less than 128-bit security; use a smaller prime")
        if self.magnitude >= 2**_ENCODER_BITS:
            raise ImpossibleParameters(f"{what}: the encoder's doubles run out; {advice}")
        if self.scale < 1:
            raise ImpossibleParameters(f"{what}: sums would wrap around the modulus; {advice}")
        if self.grid_bound(self.max_clients) >= 0.5:
            raise ImpossibleParameters(f"{what}: noise would reach the grid; {advice}")

    @property
    def _cost(self) -> tuple[float, int]:
        return self.bytes_per_value, self.prime_bits

    @cached_property
    def security_bits(self) -> int:
        """256, 192 or 128, by SEAL's table; 0 if none is reached."""
        levels = {256: seal.SEC_LEVEL_TYPE.TC256, 192: seal.SEC_LEVEL_TYPE.TC192,
                  128: seal.SEC_LEVEL_TYPE.TC128}
        reached = (bits for bits, level in levels.items()
                   if self.prime_bits <= seal.CoeffModulus.MaxBitCount(RING_DEGREE, level))
        return next(reached, 0)

    @property
    def prime(self) -> int:
        """q: the largest prime of its size that SEAL takes for this ring."""
        return _prime(self.prime_bits)

    @cached_property
    def radix(self) -> int:
        """B: weight of a digit over the one before it; even."""
        return self.max_clients << self.bits

    @cached_property
    def magnitude(self) -> int:
        """A: largest absolute value of a real of a sum, B/2 (1 + B + ... + B^(m-1))."""
        return self.radix // 2 * sum(self.radix**i for i in range(self.digits_per_real))

    @cached_property
    def scale(self) -> int:
        """Grid step in the encoded polynomial, the largest that the capacity allows.

        A coefficient of a polynomial with slots z_j is the mean of Re(z_j w_j), |w_j| = 1, so at
        most max|z_j| <= sqrt(2) A scale (reached at X^(N/4)); noise and rounding add at most 22 a
        client. It must stay below q/2, and one client's share of it below 2^(prime_bits - 2),
        SEAL's own limit.
        """
        room = min(self.prime // 2, self.max_clients << (self.prime_bits - 2))
        room -= 22 * self.max_clients
        return max(0, math.floor(room / (math.sqrt(2) * self.magnitude) * (1 - 1e-9)))

    @property
    def values_per_block(self) -> int:
        return RING_DEGREE * self.digits_per_real

    @property
    def bytes_per_value(self) -> float:
        """Of a full block's, on the way to the server."""
        return self.prime_bits / 8 / self.digits_per_real

    def block_values(self, digits: int) -> tuple[int, ...]:
        """A slot mixes every coefficient, so that each block is sent whole."""
        return full_blocks(digits, self.values_per_block)

    def predicted_deviation(self, clients: int) -> float:
        """Standard deviation of a real from the grid in a sum over ``clients``, in grid steps."""
        return predicted_deviation(ring_degree=RING_DEGREE, scale=self.scale, clients=clients,
                                   magnitude=self.magnitude)

    def grid_bound(self, clients: int) -> float:
        """Distance from the grid, in grid steps, that honest sums keep but for 2^-40 a run."""
        return grid_bound(ring_degree=RING_DEGREE, scale=self.scale, clients=clients,
                          magnitude=self.magnitude)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(
            suite=self.suite, max_clients=self.max_clients, bits=self.bits,
            ring_degree=RING_DEGREE, prime=self.prime, radix=self.radix,
            digits_per_real=self.digits_per_real, scale=self.scale)


@lru_cache(maxsize=len(PRIME_BITS))
def _prime(prime_bits: int) -> int:
    return int(seal.CoeffModulus.Create(RING_DEGREE, [prime_bits])[0].value())
