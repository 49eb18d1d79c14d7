"""Digits to blocks and back, with the key. One class a suite, the same three methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from encryption.accumulator import dump_words, parse_words
from encryption.ciphertext import MemoryFile, dump_fresh, load_sum, seal_context
from encryption.ckks import CKKSParameters
from encryption.packing import pack, unpack
from encryption.rlwe import RLWEParameters
from encryption.types import Parameters, Refused
from encryption.wire import WHOLE, Kind, Part, Place, check_count
from keyholder.keys import KeyFileError, SharedKey
from keyholder.refusals import DigitOutOfRange, GridCheckFailed
from keyholder.rlwe import RLWECipher, UnusableSecret
from keyholder.seal_keys import UnusableKey, load_secret
from keyholder.secret_bytes import Readable


class SumCipher(Protocol):
    def encrypt(self, digits: NDArray[np.int64], number: int, client: int, part: Part = WHOLE
                ) -> tuple[bytes, ...]:
        """Signed digits of one client in round ``number``, closing zeros included -> its blocks;
        or those of a part."""

    def parse(self, blocks: Sequence[bytes], sizes: Sequence[int], number: int) -> Sequence[Any]:
        """What :meth:`decrypt` takes. Raises Refused unless these are well-formed summed blocks of
        so many digits each, of round ``number``, and not messages in the clear. Uses no key."""

    def decrypt(self, parsed: Sequence[Any], sizes: Sequence[int], clients: int
                ) -> NDArray[np.int64]:
        """Parsed blocks of a sum of ``clients`` updates -> digit sums, closing zeros included.
        Raises GridCheckFailed, DigitOutOfRange."""


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

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int, part: Part = WHOLE
                ) -> tuple[bytes, ...]:
        slots = pack(digits, self._parameters)
        scale, plain = float(self._parameters.scale), seal.Plaintext()
        blocks = []
        with MemoryFile() as file:
            for index, row in enumerate(slots, part.first):
                self._encoder.encode(row.tolist(), scale, plain)
                place = Place(Kind.FRESH, number, client, index, part.count or len(slots))
                blocks.append(dump_fresh(self._encryptor.encrypt_symmetric(plain),
                                         self._parameters, place, file))
        return tuple(blocks)

    def parse(self, blocks: Sequence[bytes], sizes: Sequence[int], number: int
              ) -> list[seal.Ciphertext]:
        check_count(blocks, len(sizes))
        parsed = []
        with MemoryFile() as file:
            for index, block in enumerate(blocks):
                place, total = load_sum(block, self._parameters, index, len(sizes), file)
                _check_round(place, number)
                parsed.append(total)
        return parsed

    def decrypt(self, parsed: Sequence[seal.Ciphertext], sizes: Sequence[int], clients: int
                ) -> NDArray[np.int64]:
        bound, plain = self._parameters.grid_bound(clients), seal.Plaintext()
        digits = np.empty((len(parsed), self._parameters.values_per_block), np.int64)
        for row, total in zip(digits, parsed, strict=True):
            self._decryptor.decrypt(total, plain)
            slots = np.array(self._encoder.decode_complex(plain))[np.newaxis]
            found = unpack(slots, self._parameters)
            if not found.distance <= bound:
                raise GridCheckFailed("a slot is off the integer grid")
            if not found.in_range:
                raise DigitOutOfRange("a digit is out of range")
            row[:] = found.digits
        return digits.reshape(-1)


class PlaintextCipher:
    """No cipher: words as they are."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def encrypt(self, digits: NDArray[np.int64], number: int, client: int, part: Part = WHOLE
                ) -> tuple[bytes, ...]:
        rows = digits.reshape(-1, self._parameters.values_per_block)
        return tuple(
            dump_words(row, self._parameters,
                       Place(Kind.FRESH_WORDS, number, client, index, part.count or len(rows)))
            for index, row in enumerate(rows, part.first))

    def parse(self, blocks: Sequence[bytes], sizes: Sequence[int], number: int
              ) -> list[NDArray[np.int64]]:
        check_count(blocks, len(sizes))
        parsed = []
        for index, block in enumerate(blocks):
            place, sums = parse_words(block, self._parameters, Kind.SUM_WORDS, index, len(sizes))
            _check_round(place, number)
            parsed.append(sums)
        return parsed

    def decrypt(self, parsed: Sequence[NDArray[np.int64]], sizes: Sequence[int], clients: int
                ) -> NDArray[np.int64]:
        return np.concatenate(parsed)


def _check_round(place: Place, number: int) -> None:
    if place.round != number:
        raise Refused("a block belongs to another round")
