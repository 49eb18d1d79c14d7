"""What may be opened, kept on disk: one sum a round, and nothing after a failed check.

Files below the guard's folder, all written whole (temporary file, fsync, rename or link, fsync of
the folder): ``claims/H.json`` the claim of a round, ``answers/H/ROUND`` what its opening gave,
after the SHA-256 of that, ``retired/run-H`` and ``retired/key-ID``. H is a SHA-256, because run
names come from the server. ``claims/key-ID`` says again that a key is retired.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encryption.types import OpenedSum, OpeningClaim, RoundId
from keyholder.refusals import AnotherSumClaimed, KeyRetired, OpeningRefused

__all__ = ["OpeningGuard", "OpeningRefused"]

_CHECK_BYTES = 32
_KEEP = 2
"""Answers of a run. A large model's takes megabytes a round."""


class OpeningGuard:
    """The memory of one opener, over restarts and processes that share the folder."""

    def __init__(self, directory: str | Path) -> None:
        self._root = Path(directory)
        for name in ("claims", "answers", "retired"):
            (self._root / name).mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the guard against every other thread and process; a crash lets go of it.

        An opening stays inside from its claim to its answer, so that a failed check retires the
        key before another opening begins.
        """
        with (self._root / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check(self, round_id: RoundId, key_id: str) -> None:
        """Raises KeyRetired where nothing of the run, or with the key, will be opened again."""
        markers = (*self._key_markers(key_id), self._run_marker(round_id))
        if any(marker.exists() for marker in markers):
            raise KeyRetired("an earlier opening failed its checks: nothing more is opened of its "
                             "run, or with its key; the federation needs a new key")

    def claim(self, claim: OpeningClaim, key_id: str) -> OpenedSum | None:
        """Claim a round for one sum, on disk before this returns.

        Returns the stored answer if this very claim was answered, else None: the caller may open
        it (again, if it died before storing the answer). Raises KeyRetired, AnotherSumClaimed.
        Of several processes that claim at once, one wins.
        """
        self.check_claim(claim, key_id)
        path, content = self._claim_path(claim.round_id), _claim_content(claim, key_id)
        with contextlib.suppress(FileExistsError):
            _write(path, content, replace=False)
        self.check_claim(claim, key_id)
        return self._answer(claim)

    def claimed(self, round_id: RoundId) -> bool:
        """Whether a sum was claimed for the round."""
        return self._claim_path(round_id).exists()

    def close(self, round_id: RoundId) -> None:
        """Claim the round for no sum at all: its claim was lost, and it may have been opened."""
        with contextlib.suppress(FileExistsError):
            _write(self._claim_path(round_id), b"lost", replace=False)

    def check_claim(self, claim: OpeningClaim, key_id: str) -> None:
        """Raises KeyRetired, AnotherSumClaimed where :meth:`claim` would; claims nothing."""
        self.check(claim.round_id, key_id)
        path = self._claim_path(claim.round_id)
        if path.exists() and path.read_bytes() != _claim_content(claim, key_id):
            raise AnotherSumClaimed("this round was claimed for another sum")

    def store(self, claim: OpeningClaim, opened: OpenedSum) -> None:
        """Keep the answer of a claim, to be given again, and of the run's answers the newest two:
        who asks for an older one again has it opened again, to the same integers."""
        path = self._answer_path(claim.round_id)
        path.parent.mkdir(exist_ok=True)
        content = opened.values.astype("<i8").tobytes()
        _write(path, hashlib.sha256(content).digest() + content)
        for old in sorted(path.parent.iterdir())[:-_KEEP]:
            old.unlink(missing_ok=True)

    def retire(self, round_id: RoundId, key_id: str) -> None:
        """Refuse all openings of this run and of this key, for ever."""
        for marker in (*self._key_markers(key_id), self._run_marker(round_id)):
            _write(marker, b"")

    def _answer(self, claim: OpeningClaim) -> OpenedSum | None:
        path = self._answer_path(claim.round_id)
        if not path.exists():
            return None
        stored = path.read_bytes()
        content = stored[_CHECK_BYTES:]
        if hashlib.sha256(content).digest() != stored[:_CHECK_BYTES]:
            return None  # damaged; the same claim may be opened again
        return OpenedSum(np.frombuffer(content, "<i8").astype(np.int64), claim.partners)

    def _answer_path(self, round_id: RoundId) -> Path:
        run = _hash(b"run", round_id.run.encode())
        return self._root / "answers" / run / f"{round_id.round:09d}"

    def _claim_path(self, round_id: RoundId) -> Path:
        return self._root / "claims" / f"{_name(round_id)}.json"

    def _run_marker(self, round_id: RoundId) -> Path:
        return self._root / "retired" / f"run-{_hash(b'run', round_id.run.encode())}"

    def _key_markers(self, key_id: str) -> tuple[Path, Path]:
        """Two, so that a lost folder does not bring a key back."""
        return tuple(self._root / name / f"key-{key_id}" for name in ("retired", "claims"))


def _claim_content(claim: OpeningClaim, key_id: str) -> bytes:
    return json.dumps({"partners": list(claim.partners), "digest": claim.digest.hex(),
                       "key": key_id}).encode()


def _name(round_id: RoundId) -> str:
    return _hash(b"round", round_id.run.encode(), str(round_id.round).encode())


def _hash(*parts: bytes) -> str:
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.sha256(b"veilsum guard 1\0" + framed).hexdigest()


def _write(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Whole or not at all, and on the disk when this returns.

    Raises FileExistsError if the file is there and must not be replaced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # fails where the file exists, unlike a rename
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
