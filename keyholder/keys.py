"""The key that the partners of a federation share, and the operator never sees.

File, version 1: magic ``VEILKEY1`` (8), fingerprint of the parameters (32), tag key (32), length of
the cipher's key (4, little-endian), the cipher's key (residues of SEAL's secret key, 8 bytes each;
nothing for the plaintext suite), SHA-256 of all that (32).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import NoReturn, Self

from encryption.parameters import CKKSParameters
from encryption.types import Parameters
from keyholder.seal_keys import new_secret_residues

_MAGIC = b"VEILKEY1"
_FINGERPRINT_BYTES = _TAG_KEY_BYTES = _CHECK_BYTES = 32
_FIXED_BYTES = len(_MAGIC) + _FINGERPRINT_BYTES + _TAG_KEY_BYTES + 4
_MAX_FILE_BYTES = 1 << 20


class KeyFileError(ValueError):
    """A key that is missing, damaged or made for other parameters; says what to do."""


class SharedKey:
    """The cipher's secret key and the tag key, bound to one choice of parameters.

    ``key_id`` is public. Nothing secret shows in repr or str; pickling and copying are refused.
    """

    __slots__ = ("_cipher_key", "_tag_key", "fingerprint", "key_id")

    def __init__(self, fingerprint: str, tag_key: bytes, cipher_key: bytes) -> None:
        self.fingerprint = fingerprint
        self._tag_key = tag_key
        self._cipher_key = cipher_key
        secret = _frame(fingerprint, tag_key, cipher_key)
        self.key_id = hmac.digest(tag_key, b"veilsum key id 1\0" + secret, "sha256")[:16].hex()

    @classmethod
    def generate(cls, parameters: Parameters) -> Self:
        """A fresh key from the operating system's randomness."""
        cipher_key = b""
        if isinstance(parameters, CKKSParameters):
            cipher_key = new_secret_residues(parameters)
        return cls(parameters.fingerprint, secrets.token_bytes(_TAG_KEY_BYTES), cipher_key)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key file. Raises KeyFileError, which names the file but none of its content."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError:
            raise KeyFileError(f"there is no key file {path}; copy the federation's key there"
                               ) from None
        except OSError as error:
            raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from None
        try:
            return cls._parse(content)
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}") from None

    @classmethod
    def _parse(cls, content: bytes) -> Self:
        if not content.startswith(_MAGIC):
            raise KeyFileError("not a key file of this version; copy the federation's key again")
        frame, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
        if len(frame) < _FIXED_BYTES or hashlib.sha256(frame).digest() != check:
            raise KeyFileError("truncated or damaged; copy the federation's key again")
        rest = frame[len(_MAGIC) :]
        fingerprint, rest = rest[:_FINGERPRINT_BYTES], rest[_FINGERPRINT_BYTES:]
        tag_key, rest = rest[:_TAG_KEY_BYTES], rest[_TAG_KEY_BYTES:]
        if int.from_bytes(rest[:4], "little") != len(rest) - 4:
            raise KeyFileError("truncated or damaged; copy the federation's key again")
        return cls(fingerprint.hex(), tag_key, rest[4:])

    def save(self, path: str | Path) -> None:
        """Write the key so that only this user can read it: whole or not at all.

        Raises FileExistsError rather than replace a key, OSError.
        """
        path = Path(path)
        frame = _frame(self.fingerprint, self._tag_key, self._cipher_key)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(frame + hashlib.sha256(frame).digest())
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)  # fails where the file exists, unlike a rename
        except FileExistsError:
            raise FileExistsError(
                f"{path} exists; a key is never overwritten, move it away first") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()

    def check_fits(self, parameters: Parameters) -> None:
        """Raises KeyFileError if the key was made for other parameters."""
        if self.fingerprint != parameters.fingerprint:
            raise KeyFileError(
                f"the key was made for other parameters ({self.fingerprint[:12]}) than this run's "
                f"({parameters.fingerprint[:12]}); provision a key for them")

    def derive(self, purpose: bytes) -> bytes:
        """32 secret bytes for one purpose, by HMAC-SHA256 under the tag key."""
        return hmac.digest(self._tag_key, b"veilsum derive 1\0" + purpose, "sha256")

    def cipher_key(self) -> bytes:
        """The cipher's secret key. For this package only."""
        return self._cipher_key

    def __repr__(self) -> str:
        return f"SharedKey(key_id={self.key_id!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SharedKey is never pickled or copied; use save and load")


def _frame(fingerprint: str, tag_key: bytes, cipher_key: bytes) -> bytes:
    return b"".join((_MAGIC, bytes.fromhex(fingerprint), tag_key,
                     len(cipher_key).to_bytes(4, "little"), cipher_key))
