"""Digits to blocks and back, with the key. One class a suite, the same three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption.accumulator import dump_words, parse_words
from encryption.ciphertext import MemoryFile, dump_fresh, load_sum, parse_sum, seal_context
from encryption.ckks import CKKSParameters
from encryption.packing import pack, unpack
from encryption.rlwe import RLWEParameters
from encryption.types import Parameters, Refused
from encryption.wire import Kind, Place, check_count
from keyholder.keys import KeyFileError, SharedKey
from keyholder.refusals import DigitOutOfRange, GridCheckFailed
from keyholder.rlwe import RLWECipher, UnusableSecret
from keyholder.seal_keys import UnusableKey, load_secret
from keyholder.secret_bytes import Readable


class SumCipher(Protocol):
    def encrypt(self, digits: NDArray[np.int64], number: int, client: int) -> tuple[bytes, ...]:
        """(blocks * values_per_block,) signed digits of one client in round ``number`` -> its
        blocks."""

    def check_format(self, blocks: Sequence[bytes], count: int, number: int) -> None:
        """Raises Refused unless these are ``count`` well-formed summed blocks of round ``number``.
        Uses no key."""

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        """Well-formed summed blocks of ``clients`` updates -> (blocks * values_per_block,) digit
        sums. Raises GridCheckFailed, DigitOutOfRange."""


def make_cipher(key: SharedKey, parameters: Parameters) -> SumCipher:
    """Raises KeyFileError if the key was made for other parameters."""
    key.check_fits(parameters)
    try:
        if isinstance(parameters, CKKSParameters):
            return CKKSCipher(key.cipher_key(), parameters)
        if isinstance(parameters, RLWEParameters):
            return RLWECipher(key.cipher_key(), parameters)
    except (UnusableKey, UnusableSecret) as error:
        raise KeyFileError(str(error)) from None
    return PlaintextCipher(parameters)


class CKKSCipher:
    """Seeded symmetric CKKS; what it decrypts leaves as exact integers or not at all."""

    def __init__(self, residues: Readable, parameters: CKKSParameters) -> None:
        """Raises UnusableKey."""
        self._parameters = parameters
        context, secret = seal_context(parameters), load_secret(residues, parameters)
        self._encoder = seal.CKKSEncoder(context)
        self._encryptor = seal.Encryptor(context, secret)
        self._decryptor = seal.Decryptor(context, secret)

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int) -> tuple[bytes, ...]:
        slots = pack(digits, self._parameters)
        scale, plain = float(self._parameters.scale), seal.Plaintext()
        blocks = []
        with MemoryFile() as file:
            for index, row in enumerate(slots):
                self._encoder.encode(row.tolist(), scale, plain)
                place = Place(Kind.FRESH, number, client, index, len(slots))
                blocks.append(dump_fresh(self._encryptor.encrypt_symmetric(plain),
                                         self._parameters, place, file))
        return tuple(blocks)

    def check_format(self, blocks: Sequence[bytes], count: int, number: int) -> None:
        check_count(blocks, count)
        for index, block in enumerate(blocks):
            _check_round(parse_sum(block, self._parameters, index, count)[0], number)

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        bound, parts = self._parameters.grid_bound(clients), []
        plain = seal.Plaintext()
        with MemoryFile() as file:
            for index, block in enumerate(blocks):
                total = load_sum(block, self._parameters, index, len(blocks), file)
                self._decryptor.decrypt(total, plain)
                row = np.array(self._encoder.decode_complex(plain))[np.newaxis]
                found = unpack(row, self._parameters)
                if not found.distance <= bound:
                    raise GridCheckFailed("a slot is off the integer grid")
                if not found.in_range:
                    raise DigitOutOfRange("a digit is out of range")
                parts.append(found.digits)
        return np.concatenate(parts)


class PlaintextCipher:
    """No cipher: words as they are."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int) -> tuple[bytes, ...]:
        rows = digits.reshape(-1, self._parameters.values_per_block)
        return tuple(
            dump_words(row, self._parameters,
                       Place(Kind.FRESH_WORDS, number, client, index, len(rows)))
            for index, row in enumerate(rows))

    def check_format(self, blocks: Sequence[bytes], count: int, number: int) -> None:
        check_count(blocks, count)
        for index, block in enumerate(blocks):
            _check_round(self._parse(block, index, count)[0], number)

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        return np.concatenate([
            np.frombuffer(self._parse(block, index, len(blocks))[1], "<i4").astype(np.int64)
            for index, block in enumerate(blocks)])

    def _parse(self, block: bytes, index: int, count: int) -> tuple[Place, memoryview]:
        return parse_words(block, self._parameters, Kind.SUM_WORDS, index, count)


def _check_round(place: Place, number: int) -> None:
    if place.round != number:
        raise Refused("a block belongs to another round")
