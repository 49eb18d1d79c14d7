"""The equations that a block of either cipher gives to key recovery."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from encryption import rlwe
from encryption.ckks import CKKSParameters
from encryption.types import Parameters
from encryption.wire import HEADER_BYTES, Kind, Place, packed_bytes, unpack_bits
from keyholder.keys import SharedKey
from keyholder.rlwe import RLWECipher
from tests.adversary import recovery
from tests.adversary.recovery import Integers
from tests.keyholder import forging

Phase = Callable[[NDArray, NDArray], NDArray]


def attack(parameters: Parameters, block: bytes, phase: Phase) -> Integers | None:
    """The key, if ``phase(c0, c1)`` is what the block decrypts to."""
    if isinstance(parameters, CKKSParameters):
        size = packed_bytes(4096, parameters.prime_bits)
        body = block[HEADER_BYTES:]
        c0, c1 = unpack_bits([body[:size], body[size:]], 4096,
                             parameters.prime_bits).astype(object)
        return recovery.from_phase((c0, c1, phase(c0, c1)), parameters.prime)
    c0, c1 = forging.rlwe_words(parameters, block)
    try:
        return recovery.from_words(c0, c1, phase(c0, c1))
    except ZeroDivisionError:
        return None  # half of all; the next one will do


def believed(parameters: Parameters, digits: NDArray[np.int64]) -> Integers:
    """The noiseless plaintext of the opened integers."""
    if isinstance(parameters, CKKSParameters):
        block = forging._encoded(parameters, digits, Place.of_sum(Kind.SUM, 1, 0, 1))
        size = packed_bytes(4096, parameters.prime_bits)
        body = block[HEADER_BYTES : HEADER_BYTES + size]
        return unpack_bits([body], 4096, parameters.prime_bits)[0].astype(object)
    packed = rlwe.pack_coefficients(digits[np.newaxis], parameters)[0]
    return (packed * parameters.step).view(np.uint64)


def exact(key: SharedKey, parameters: Parameters) -> Phase:
    """What an opener that does not round would give away."""
    if isinstance(parameters, CKKSParameters):
        known = np.frombuffer(key.cipher_key(), "<u8").astype(object)
        return lambda c0, c1: (c0 + c1 * known) % parameters.prime
    cipher = RLWECipher(key.cipher_key(), parameters)
    return lambda c0, c1: c0 - cipher.product(c1.copy()[np.newaxis])[0]


def secret(key: SharedKey, parameters: Parameters) -> Integers:
    if isinstance(parameters, CKKSParameters):
        return recovery.coefficients(
            np.frombuffer(key.cipher_key(), "<u8").astype(object), parameters.prime)
    return np.frombuffer(key.cipher_key(), np.uint8).astype(int) - 1
