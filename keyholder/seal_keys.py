"""SEAL's secret key as plain residues, and back."""

from __future__ import annotations

import struct

import numpy as np
import tenseal.sealapi as seal

from encryption.ciphertext import MemoryFile, parms_id, seal_body, seal_context, seal_header
from encryption.ckks import CKKSParameters
from keyholder.secret_bytes import Readable, wipe

# A secret key is a SEAL plaintext: parms_id, coefficients, scale, then the words with a header.
_METADATA = struct.Struct("<32sQd")
_PREFIX_BYTES = _METADATA.size + 16 + 8


class UnusableKey(ValueError):
    """The key file's residues are not a secret key of these parameters."""


def new_secret_residues(parameters: CKKSParameters) -> bytes:
    """A fresh ternary secret key: N residues in NTT form, 8 bytes each, little-endian."""
    secret = seal.KeyGenerator(seal_context(parameters)).secret_key()
    words = 8 * parameters.ring_degree
    with MemoryFile() as file:
        secret.save(file.path)
        return seal_body(file.read(), _PREFIX_BYTES + words)[_PREFIX_BYTES:]


def load_secret(residues: Readable, parameters: CKKSParameters) -> seal.SecretKey:
    """Raises UnusableKey."""
    degree = parameters.ring_degree
    if len(residues) != 8 * degree or np.frombuffer(residues, "<u8").max() >= parameters.prime:
        raise UnusableKey("the key does not belong to these parameters; copy it again")
    start = (_METADATA.pack(parms_id(parameters), degree, 1.0) + seal_header(8 + 8 * degree)
             + degree.to_bytes(8, "little"))
    body = bytearray(seal_header(len(start) + len(residues)) + start)
    body += residues
    secret = seal.SecretKey()
    with MemoryFile() as file:
        file.write(body)
        secret.load(seal_context(parameters), file.path)
    wipe(body)
    return secret
