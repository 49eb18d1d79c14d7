"""SEAL ciphertexts from and to the wire, through memory files.

SEAL reads and writes only files; an anonymous memory file gives it bytes. A blob is SEAL's
16-byte header, then (uncompressed, or zstd in what SEAL writes): parms_id (32), in NTT form (1),
polynomials (8), N (8), primes (8), scale (8, double), correction factor (8); a nested header (16)
with the number of words (8) and the words; where the ciphertext is seeded, a nested header (16),
the generator's type (1) and its seed (64) in place of the second polynomial.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from types import TracebackType
from typing import Self

import numpy as np
import tenseal.sealapi as seal
import zstandard

from encryption.ckks import CKKSParameters
from encryption.types import Refused
from encryption.wire import Kind, Place, Words, frame, pack_bits, packed_bytes, parse, unpack_bits

SEED_BYTES = 64

_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC, _BLAKE2XB = 0xA15E, 1
_METADATA = struct.Struct("<32sBQQQdQ")
_PREFIX_BYTES = _METADATA.size + _SEAL_HEADER.size + 8


class MemoryFile:
    """An anonymous file that SEAL can open by ``path``.

    Make one where it is used and close it there: across a fork parent and child would write into
    the same file. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("veilsum")
        self.path = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.close(self._fd)

    def read(self) -> bytes:
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def write(self, blob: bytes | bytearray) -> None:
        os.ftruncate(self._fd, len(blob))
        if os.pwrite(self._fd, blob, 0) != len(blob):
            raise OSError("a memory file took only part of a block")


@lru_cache(maxsize=16)
def seal_context(parameters: CKKSParameters) -> seal.SEALContext:
    """SEAL's tables for one choice of parameters; holds no key."""
    chosen = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    chosen.set_poly_modulus_degree(parameters.ring_degree)
    chosen.set_coeff_modulus(
        seal.CoeffModulus.Create(parameters.ring_degree, [parameters.prime_bits]))
    return seal.SEALContext(chosen, True, seal.SEC_LEVEL_TYPE.TC128)


@lru_cache(maxsize=1)
def _seal_version() -> tuple[int, int]:
    """Major and minor version that this SEAL writes into its headers."""
    with MemoryFile() as file:
        seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS).save(file.path)
        blob = file.read()
    return blob[3], blob[4]


def seal_header(body_bytes: int) -> bytes:
    """SEAL's header of an uncompressed object."""
    return _SEAL_HEADER.pack(_SEAL_MAGIC, _SEAL_HEADER.size, *_seal_version(), 0, 0,
                             _SEAL_HEADER.size + body_bytes)


def seal_body(blob: bytes, body_bytes: int) -> bytes:
    """The body of an object that this process's SEAL saved with zstd."""
    body = zstandard.ZstdDecompressor().decompress(
        blob[_SEAL_HEADER.size :], max_output_size=body_bytes, allow_extra_data=False)
    if len(body) != body_bytes:
        raise RuntimeError("this version of SEAL writes another layout; pin tenseal")
    return body


@lru_cache(maxsize=16)
def parms_id(parameters: CKKSParameters) -> bytes:
    return b"".join(int(word).to_bytes(8, "little")
                    for word in seal_context(parameters).first_parms_id())


@lru_cache(maxsize=32)
def _prefix(parameters: CKKSParameters, words: int) -> bytes:
    metadata = _METADATA.pack(parms_id(parameters), 1, 2, parameters.ring_degree, 1,
                              float(parameters.scale), 1)
    return metadata + seal_header(8 + 8 * words) + words.to_bytes(8, "little")


def dump_fresh(encrypted: seal.Ciphertext, parameters: CKKSParameters, place: Place,
               file: MemoryFile) -> bytes:
    """What a seeded symmetric encryption returned -> one block of kind FRESH."""
    encrypted.save(file.path)
    words = 8 * parameters.ring_degree
    seeded = _SEAL_HEADER.size + 1 + SEED_BYTES
    body = seal_body(file.read(), _PREFIX_BYTES + words + seeded)
    residues = np.frombuffer(body, "<u8", parameters.ring_degree, _PREFIX_BYTES)
    return frame(parameters, place, body[-SEED_BYTES:],
                 *pack_bits(residues.reshape(1, -1), parameters.prime_bits))


def fresh_bytes(parameters: CKKSParameters) -> int:
    """Size of the body of a block of kind FRESH."""
    return SEED_BYTES + packed_bytes(parameters.ring_degree, parameters.prime_bits)


def load_fresh(body: memoryview, parameters: CKKSParameters, file: MemoryFile) -> seal.Ciphertext:
    """The body of a block of kind FRESH -> ciphertext with both polynomials. Raises Refused."""
    residues = _residues([body[SEED_BYTES:]], parameters)
    seed = seal_header(1 + SEED_BYTES) + bytes((_BLAKE2XB,)) + bytes(body[:SEED_BYTES])
    return _load(parameters, residues, seed, file)


def dump_sum(ciphertext: seal.Ciphertext, parameters: CKKSParameters, place: Place,
             file: MemoryFile) -> bytes:
    """A ciphertext with both polynomials -> one block of kind SUM."""
    ciphertext.save(file.path)
    words = 2 * parameters.ring_degree
    body = seal_body(file.read(), _PREFIX_BYTES + 8 * words)
    residues = np.frombuffer(body, "<u8", words, _PREFIX_BYTES)
    return frame(parameters, place, *pack_bits(residues.reshape(2, -1), parameters.prime_bits))


def load_sum(block: bytes, parameters: CKKSParameters, index: int, count: int, file: MemoryFile
             ) -> tuple[Place, seal.Ciphertext]:
    """One block of kind SUM -> its place and the ciphertext. Raises Refused, also for a message in
    the clear: its second polynomial is zero, so that it says the same under every key."""
    size = packed_bytes(parameters.ring_degree, parameters.prime_bits)
    place, body = parse(block, parameters, Kind.SUM, index, count, 2 * size)
    residues = _residues([body[:size], body[size:]], parameters)
    if not residues[parameters.ring_degree :].any():
        raise Refused("a block is a message in the clear, no sum of ciphertexts")
    return place, _load(parameters, residues, b"", file)


def _residues(bodies: list[memoryview], parameters: CKKSParameters) -> Words:
    residues = unpack_bits(bodies, parameters.ring_degree, parameters.prime_bits)
    if int(residues.max()) >= parameters.prime:
        raise Refused("a block holds a residue that is not below the prime")
    return residues.reshape(-1)


def _load(parameters: CKKSParameters, residues: Words, seed: bytes, file: MemoryFile
          ) -> seal.Ciphertext:
    body = (_prefix(parameters, len(residues)) + residues.astype("<u8", copy=False).tobytes()
            + seed)
    file.write(seal_header(len(body)) + body)
    ciphertext = seal.Ciphertext()
    try:
        ciphertext.load(seal_context(parameters), file.path)
    except (RuntimeError, ValueError) as error:
        raise Refused("a block is not a ciphertext of these parameters") from error
    return ciphertext
