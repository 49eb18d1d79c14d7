"""Every suite's checked parameters, by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from encryption.ckks import CKKSParameters
from encryption.request import (
    MAX_BITS,
    MIN_BITS,
    ImpossibleParameters,
    check_request,
    fingerprint_of,
    full_blocks,
)
from encryption.rlwe import RLWEParameters
from encryption.types import Parameters

__all__ = ["CKKSParameters", "ImpossibleParameters", "PlaintextParameters", "RLWEParameters",
           "choose_parameters", "most_bits"]


@dataclass(frozen=True)
class PlaintextParameters:
    """No cipher: digits travel as 32-bit words, their sums as 64-bit ones where 32 bits could
    overflow. The exact oracle of the encrypted suites."""

    suite: ClassVar[str] = "plaintext"
    suite_code: ClassVar[int] = 0
    values_per_block: ClassVar[int] = 1024
    security_bits: ClassVar[int] = 0
    max_clients: int
    bits: int

    @classmethod
    def for_cohort(cls, max_clients: int, bits: int) -> PlaintextParameters:
        return cls(max_clients, bits)

    def __post_init__(self) -> None:
        check_request(self.max_clients, self.bits)

    @property
    def sum_word_bytes(self) -> int:
        """4 or 8, of a digit of a sum over max_clients."""
        return 4 if self.max_clients << self.bits <= 2**32 else 8

    @property
    def bytes_per_value(self) -> float:
        return 4.0

    def block_values(self, digits: int) -> tuple[int, ...]:
        return full_blocks(digits, self.values_per_block)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(suite=self.suite, max_clients=self.max_clients, bits=self.bits)


def choose_parameters(suite: str, max_clients: int, bits: int) -> Parameters:
    """Parameters of the named suite. Raises ImpossibleParameters."""
    suites = {kind.suite: kind for kind in (CKKSParameters, RLWEParameters, PlaintextParameters)}
    if suite not in suites:
        raise ImpossibleParameters(f"encryption={suite!r} is not one of {', '.join(suites)}")
    return suites[suite].for_cohort(max_clients, bits)


def most_bits(suite: str, max_clients: int) -> int:
    """The widest digit of which the named suite can sum ``max_clients``. Raises
    ImpossibleParameters where it can sum none."""
    for bits in range(MAX_BITS, MIN_BITS, -1):
        try:
            return choose_parameters(suite, max_clients, bits).bits
        except ImpossibleParameters:
            continue
    return choose_parameters(suite, max_clients, MIN_BITS).bits
