"""Replies kept on the partner's disk: asked again, the same bytes go out, never a second
encryption of another draw of noise for one round.

A file: SHA-256 of the rest (32), number of blocks (4, little-endian), then each block's length (8)
and bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from encryption.types import Refused, RoundId
from strategies.durable import write_whole

_KEEP = 2
_CHECK_BYTES = 32


class RoundAlreadyAnswered(Refused):
    """The round was answered and its bytes are gone; answering anew would break privacy."""


class ReplyDamaged(Refused):
    """The stored reply is not what was written; answering anew would break privacy."""


class ReplyStore:
    """One folder per run below ``folder``; the newest two replies are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store against every other process, from :meth:`get` to :meth:`put`: a server
        that begins anew may ask for a round while the process that it asked before still works
        on it. A crash lets go of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def get(self, round_id: RoundId) -> tuple[bytes, ...] | None:
        """The stored blocks, or None for a round never answered. Raises RoundAlreadyAnswered
        for a round at or below the newest answered one whose bytes are no longer kept, and
        ReplyDamaged."""
        path = self._path(round_id)
        if path.exists():
            return _unpack(path.read_bytes())
        answered = self._answered(round_id)
        if answered and round_id.round <= max(answered):
            raise RoundAlreadyAnswered("this round was answered before")
        return None

    def holds(self, round_id: RoundId) -> bool:
        """Whether the round's blocks are there. Raises ReplyDamaged."""
        path = self._path(round_id)
        return path.exists() and bool(_unpack(path.read_bytes()))

    def newest_before(self, round_id: RoundId) -> tuple[bytes, ...]:
        """The blocks of the newest earlier round of this run that is kept, () without one. Raises
        ReplyDamaged."""
        earlier = [number for number in self._answered(round_id) if number < round_id.round]
        if not earlier:
            return ()
        return _unpack(self._path(RoundId(round_id.run, max(earlier))).read_bytes())

    def put(self, round_id: RoundId, blocks: tuple[bytes, ...]) -> None:
        """Store atomically, synced to disk before the reply may be sent."""
        write_whole(self._path(round_id), _pack(blocks))
        for old in sorted(self._answered(round_id))[:-_KEEP]:
            self._path(RoundId(round_id.run, old)).unlink(missing_ok=True)

    def _answered(self, round_id: RoundId) -> list[int]:
        folder = self._path(round_id).parent
        return [int(path.stem) for path in folder.glob("[0-9]*.blocks") if path.stem.isdecimal()]

    def _path(self, round_id: RoundId) -> Path:
        return self._folder / folder_name(round_id.run) / f"{round_id.round:09d}.blocks"


def folder_name(run: str) -> str:
    """Run names come from the server."""
    return hashlib.sha256(run.encode()).hexdigest()[:32]


def _pack(blocks: tuple[bytes, ...]) -> bytes:
    body = b"".join([struct.pack("<I", len(blocks)),
                     *(struct.pack("<Q", len(block)) + block for block in blocks)])
    return hashlib.sha256(body).digest() + body


def _unpack(stored: bytes) -> tuple[bytes, ...]:
    """Raises ReplyDamaged. Past the check the lengths are those that were written."""
    check, body = stored[:_CHECK_BYTES], stored[_CHECK_BYTES:]
    if hashlib.sha256(body).digest() != check:
        raise ReplyDamaged("what this site stored of a round is damaged")
    (count,) = struct.unpack_from("<I", body)
    blocks, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", body, at)
        blocks.append(body[at + 8 : at + 8 + length])
        at += 8 + length
    return tuple(blocks)
