"""Digits to blocks and back, with the key. One class a suite, the same three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption.accumulator import dump_words, parse_words
from encryption.ciphertext import MemoryFile, dump_fresh, load_sum, parse_sum, seal_context
from encryption.packing import pack, unpack
from encryption.parameters import CKKSParameters
from encryption.types import Parameters
from encryption.wire import Kind, check_count
from keyholder.keys import KeyFileError, SharedKey
from keyholder.refusals import DigitOutOfRange, GridCheckFailed
from keyholder.seal_keys import UnusableKey, load_secret


class SumCipher(Protocol):
    def encrypt(self, digits: NDArray[np.int64]) -> tuple[bytes, ...]:
        """(blocks * values_per_block,) signed digits of one client -> its blocks."""

    def check_format(self, blocks: Sequence[bytes], count: int) -> None:
        """Raises Refused unless these are ``count`` well-formed summed blocks. Uses no key."""

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        """Well-formed summed blocks of ``clients`` updates -> (blocks * values_per_block,) digit
        sums. Raises GridCheckFailed, DigitOutOfRange."""


def make_cipher(key: SharedKey, parameters: Parameters) -> SumCipher:
    """Raises KeyFileError if the key was made for other parameters."""
    key.check_fits(parameters)
    if isinstance(parameters, CKKSParameters):
        return CKKSCipher(key, parameters)
    return PlaintextCipher(parameters)


class CKKSCipher:
    """Seeded symmetric CKKS; what it decrypts leaves as exact integers or not at all."""

    def __init__(self, key: SharedKey, parameters: CKKSParameters) -> None:
        self._parameters = parameters
        context = seal_context(parameters)
        try:
            secret = load_secret(key.cipher_key(), parameters)
        except UnusableKey as error:
            raise KeyFileError(str(error)) from None
        self._encoder = seal.CKKSEncoder(context)
        self._encryptor = seal.Encryptor(context, secret)
        self._decryptor = seal.Decryptor(context, secret)

    def encrypt(self, digits: NDArray[np.int64]) -> tuple[bytes, ...]:
        slots = pack(digits, self._parameters)
        scale, plain = float(self._parameters.scale), seal.Plaintext()
        blocks = []
        with MemoryFile() as file:
            for index, row in enumerate(slots):
                self._encoder.encode(row.tolist(), scale, plain)
                blocks.append(dump_fresh(self._encryptor.encrypt_symmetric(plain),
                                         self._parameters, index, len(slots), file))
        return tuple(blocks)

    def check_format(self, blocks: Sequence[bytes], count: int) -> None:
        check_count(blocks, count)
        for index, block in enumerate(blocks):
            parse_sum(block, self._parameters, index, count)

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

    def encrypt(self, digits: NDArray[np.int64]) -> tuple[bytes, ...]:
        rows = digits.reshape(-1, self._parameters.values_per_block)
        return dump_words(rows, self._parameters, Kind.FRESH_WORDS)

    def check_format(self, blocks: Sequence[bytes], count: int) -> None:
        check_count(blocks, count)
        parse_words(blocks, self._parameters, Kind.SUM_WORDS)

    def decrypt(self, blocks: Sequence[bytes], clients: int) -> NDArray[np.int64]:
        return parse_words(blocks, self._parameters, Kind.SUM_WORDS).reshape(-1)
