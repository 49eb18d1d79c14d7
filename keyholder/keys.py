"""The key that the partners of a federation share, and the operator never sees.

File, version 1: magic ``VEILKEY1`` (8), fingerprint of the parameters (32), tag key (32), length of
the cipher's key (4, little-endian), the cipher's key (residues of SEAL's secret key, 8 bytes each;
a ternary secret plus 1, a byte each; or nothing), SHA-256 of all that (32).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
import tempfile
from pathlib import Path
from typing import NoReturn, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from encryption.ckks import CKKSParameters
from encryption.rlwe import RLWEParameters
from encryption.types import Parameters
from keyholder.rlwe import new_secret
from keyholder.seal_keys import new_secret_residues
from keyholder.secret_bytes import Readable, SecretBytes, random_bytes, wipe

_MAGIC = b"VEILKEY1"
_FINGERPRINT_BYTES = _TAG_KEY_BYTES = _CHECK_BYTES = 32
_TAG_KEY_AT = len(_MAGIC) + _FINGERPRINT_BYTES
_LENGTH_AT = _TAG_KEY_AT + _TAG_KEY_BYTES
_CIPHER_KEY_AT = _LENGTH_AT + 4
_MAX_FILE_BYTES = 1 << 20


class KeyFileError(ValueError):
    """A key that is missing, damaged or made for other parameters; says what to do."""


class KeyExposed(KeyFileError):
    """A key that others can read, or that is somebody else's; says which command ends that."""


class SharedKey:
    """The cipher's secret key and the tag key, bound to one choice of parameters.

    ``key_id`` is public. Nothing secret shows in repr or str; pickling and copying are refused.
    The secrets are overwritten by :meth:`close`, or when the last user of the key goes; what
    cannot be wiped is listed in :mod:`keyholder.secret_bytes`.
    """

    __slots__ = ("_frame", "fingerprint", "key_id")

    def __init__(self, frame: Readable) -> None:
        """``frame``: the file without its closing checksum. Copied; the caller wipes its own."""
        self._frame = SecretBytes(frame)
        self.fingerprint = bytes(self._frame.view[len(_MAGIC) : _TAG_KEY_AT]).hex()
        named = HMAC(self._tag_key, SHA256())
        named.update(b"veilsum key id 1\0")
        named.update(self._frame.view)
        self.key_id = named.finalize()[:16].hex()

    @classmethod
    def generate(cls, parameters: Parameters) -> Self:
        """A fresh key from the operating system's randomness."""
        cipher_key = bytearray()
        if isinstance(parameters, CKKSParameters):
            cipher_key = bytearray(new_secret_residues(parameters))
        elif isinstance(parameters, RLWEParameters):
            cipher_key = new_secret()
        frame = bytearray(_CIPHER_KEY_AT + len(cipher_key))
        frame[:_TAG_KEY_AT] = _MAGIC + bytes.fromhex(parameters.fingerprint)
        random_bytes(memoryview(frame)[_TAG_KEY_AT:_LENGTH_AT])
        frame[_LENGTH_AT:_CIPHER_KEY_AT] = len(cipher_key).to_bytes(4, "little")
        frame[_CIPHER_KEY_AT:] = cipher_key
        try:
            return cls(frame)
        finally:
            wipe(frame)
            wipe(cipher_key)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a key file that is this user's, or root's, and that nobody else can read. Raises
        KeyFileError, which names the file but none of its content."""
        path = Path(path)
        content = bytearray(_MAX_FILE_BYTES)
        try:
            with path.open("rb", buffering=0) as file:
                _check_private(os.fstat(file.fileno()), path)
                size = file.readinto(content)
            return cls(_checked(memoryview(content)[:size]))
        except FileNotFoundError:
            raise KeyFileError(f"there is no key file {path}; copy the federation's key there"
                               ) from None
        except OSError as error:
            raise KeyFileError(f"the key file {path} cannot be read: {error.strerror}") from None
        except KeyExposed:
            raise
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}") from None
        finally:
            wipe(content)

    def save(self, path: str | Path) -> None:
        """Write the key so that only this user can read it: whole or not at all.

        Raises FileExistsError rather than replace a key, OSError.
        """
        path, frame = Path(path), self._frame.view
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                if file.write(frame) + file.write(hashlib.sha256(frame).digest()) != (
                        len(frame) + _CHECK_BYTES):
                    raise OSError(f"{path} was written in part; is the disk full?")
                os.fsync(file.fileno())
            path.hardlink_to(temporary)  # fails where the file exists, unlike a rename
        except FileExistsError:
            raise FileExistsError(
                f"{path} exists; a key is never overwritten, move it away first") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()

    def close(self) -> None:
        """Overwrite the secrets in memory. Whatever still uses the key raises SecretWiped."""
        self._frame.close()

    def frame(self) -> memoryview:
        """What the constructor takes, in place. For this package only."""
        return self._frame.view

    def check_fits(self, parameters: Parameters) -> None:
        """Raises KeyFileError if the key was made for other parameters."""
        if self.fingerprint != parameters.fingerprint:
            raise KeyFileError(
                f"the key was made for other parameters ({self.fingerprint[:12]}) than this run's "
                f"({parameters.fingerprint[:12]}); provision a key for them")

    def derive(self, purpose: bytes) -> bytes:
        """32 secret bytes for one purpose, by HMAC-SHA256 under the tag key."""
        return hmac.digest(self._tag_key, b"veilsum derive 1\0" + purpose, "sha256")

    def cipher_key(self) -> memoryview:
        """The cipher's secret key, in place. For this package only."""
        return self._frame.view[_CIPHER_KEY_AT:]

    @property
    def _tag_key(self) -> memoryview:
        return self._frame.view[_TAG_KEY_AT:_LENGTH_AT]

    def __repr__(self) -> str:
        return f"SharedKey(key_id={self.key_id!r})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SharedKey is never pickled or copied; use save and load")


def _check_private(about: os.stat_result, path: Path) -> None:
    """Of an open file, so that it is the one that is read. Who owns a file can read and replace it
    whatever its mode, so it has to be who runs this, or root, who can do both anyway. Raises
    KeyExposed."""
    if stat.S_ISREG(about.st_mode) and about.st_uid not in (os.geteuid(), 0):
        raise KeyExposed(f"the key file {path} belongs to another user, who can read it: run "
                         f"`chown {os.geteuid()} {path}` as root, and ask whether that user has "
                         "seen a key that nobody else should have")
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise KeyExposed(f"others can read the key file {path}: run `chmod 600 {path}`; if anybody "
                         "else uses this machine, take it that the key is known to them")


def _checked(content: memoryview) -> memoryview:
    """A key file -> its frame. Raises KeyFileError."""
    if content[: len(_MAGIC)] != _MAGIC:
        raise KeyFileError("not a key file of this version; copy the federation's key again")
    frame, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if len(frame) < _CIPHER_KEY_AT or hashlib.sha256(frame).digest() != check:
        raise KeyFileError("truncated or damaged; copy the federation's key again")
    length = int.from_bytes(frame[_LENGTH_AT:_CIPHER_KEY_AT], "little")
    if length != len(frame) - _CIPHER_KEY_AT:
        raise KeyFileError("truncated or damaged; copy the federation's key again")
    return frame
