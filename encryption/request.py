"""What is asked of every suite, and the fingerprint of what it answers."""

from __future__ import annotations

import hashlib

MIN_BITS, MAX_BITS = 2, 32
"""A digit of one client is a signed 32-bit word at most: it travels so to helper processes, and in
the suite ``plaintext``."""
LOG2_MAX_RADIX = 48
"""Keeps sums below the tags' prime, 2^61 - 1, with room to spare."""


class ImpossibleParameters(ValueError):
    """No parameters satisfy the request. The message says what to change."""


def check_request(max_clients: int, bits: int) -> None:
    """What no suite can do. Raises ImpossibleParameters."""
    if max_clients < 1:
        raise ImpossibleParameters(f"a cohort of {max_clients} clients adds nothing; at least 1")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ImpossibleParameters(
            f"encryption.bits={bits} is outside {MIN_BITS}..{MAX_BITS}; choose one inside")
    if (max_clients << bits) > 2**LOG2_MAX_RADIX:
        raise ImpossibleParameters(
            f"sums of {max_clients} clients x {bits} bits exceed {LOG2_MAX_RADIX} bits; use fewer "
            "encryption.bits or fewer clients")


def fingerprint_of(**fields: int | str) -> str:
    """SHA-256 in hex over a versioned list of ``name=value`` lines, names in ascending order."""
    lines = ["veilsum parameters 1", *(f"{name}={fields[name]}" for name in sorted(fields))]
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def full_blocks(digits: int, values_per_block: int) -> tuple[int, ...]:
    """Blocks of one size that hold ``digits``."""
    return (values_per_block,) * -(-digits // values_per_block)
