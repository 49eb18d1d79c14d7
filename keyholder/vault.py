"""Bytes that cross the operator and that key holders alone can read: sealed models and states.

AES-256 in SIV mode (RFC 5297) under a key that :meth:`SharedKey.derive` gives for one run, with
the whole header authenticated. Why this and not CKKS: nothing is ever added to a sealed model, so
it needs no homomorphism, which would cost several times the bytes and would authenticate nothing.
Why SIV and not GCM: no nonce can repeat, not even at a site that was restored from a backup, and
equal content of one round gives equal bytes, so an opener that is asked again answers the same.
SIV shows whether two contents under one header are equal; the header names run, round and kind,
so there is only ever one.

Guarantee against whoever lacks the key: the content stays secret but for its length, and what
:meth:`Vault.open` accepts was sealed by a key holder as this kind, for this run and round, and
with this link. Not covered: key holders among each other; any of them can seal.

==========  ====  =======================================================================
offset      size  content; integers little-endian
==========  ====  =======================================================================
0           8     magic ``VEILSEAL``
8           1     version, 1
9           1     kind: 1 a model, 2 an optimiser's state
10          2     zero
12          4     round that begins with it
16          32    SHA-256 of the run's name at the partners, which commits to its configuration
48          16    identifier of the key
64          32    link: model: digest of the sum it came from; state: digest of its model
96          16    synthetic initialisation vector (authenticates everything)
112         ...   ciphertext, as long as the content
==========  ====  =======================================================================
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from keyholder.keys import SharedKey
from keyholder.refusals import SealBroken

MAGIC, VERSION = b"VEILSEAL", 1
_HEADER = struct.Struct("<8sBBHI32s16s32s")
HEADER_BYTES = _HEADER.size
OVERHEAD_BYTES = HEADER_BYTES + 16


class Kind(IntEnum):
    MODEL = 1
    STATE = 2


@dataclass(frozen=True)
class SealedHeader:
    """What a sealed piece says of itself; true only once it has been opened."""

    kind: Kind
    round: int
    run: bytes
    key_id: str
    link: bytes

    def pack(self) -> bytes:
        return _HEADER.pack(MAGIC, VERSION, self.kind, 0, self.round, self.run,
                            bytes.fromhex(self.key_id), self.link)


def read_header(sealed: bytes) -> SealedHeader:
    """Raises SealBroken for bytes that are no sealed piece of this version."""
    if len(sealed) <= OVERHEAD_BYTES or not sealed.startswith(MAGIC):
        raise SealBroken("not a sealed model or state")
    _, version, kind, zero, number, run, key_id, link = _HEADER.unpack_from(sealed)
    if version != VERSION or zero or kind not in tuple(Kind):
        raise SealBroken("a sealed piece of another version or kind")
    return SealedHeader(Kind(kind), number, run, key_id.hex(), link)


def run_hash(run: str) -> bytes:
    return hashlib.sha256(b"veilsum sealed run 1\0" + run.encode()).digest()


class Vault:
    """Seals and opens the pieces of one run (by :func:`run_hash`)."""

    def __init__(self, key: SharedKey, run: bytes) -> None:
        self._run, self._key_id = run, key.key_id
        self._cipher = AESSIV(b"".join(
            key.derive(b"sealed model 1\0" + half + run) for half in (b"mac", b"ctr")))

    def seal(self, kind: Kind, number: int, link: bytes, content: bytes) -> bytes:
        """link: 32 bytes. Content of at least one byte."""
        header = SealedHeader(kind, number, self._run, self._key_id, link).pack()
        return header + self._cipher.encrypt(content, [header])

    def open(self, kind: Kind, number: int, sealed: bytes) -> tuple[SealedHeader, bytes]:
        """The header and the content of a piece that must be of this kind, for this round of
        this run. Raises SealBroken."""
        header = read_header(sealed)
        if header.key_id != self._key_id:
            raise SealBroken("a piece that was sealed with another key")
        if header.run != self._run:
            raise SealBroken("a piece of another run")
        if (header.kind, header.round) != (kind, number):
            raise SealBroken("a piece of another round or kind")
        try:
            content = self._cipher.decrypt(sealed[HEADER_BYTES:], [sealed[:HEADER_BYTES]])
        except InvalidTag:
            raise SealBroken("a sealed piece was changed, or is not of this run") from None
        return header, content
