"""Replies kept on the partner's disk: asked again, the same bytes go out, never a second
encryption of another draw of noise for one round."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from encryption.types import Refused, RoundId

_KEEP = 2


class RoundAlreadyAnswered(Refused):
    """The round was answered and its bytes are gone; answering anew would break privacy."""


class ReplyStore:
    """One folder per run below ``folder``; the newest two replies are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, round_id: RoundId) -> tuple[bytes, ...] | None:
        """The stored blocks, or None for a round never answered. Raises RoundAlreadyAnswered
        for a round at or below the newest answered one whose bytes are no longer kept."""
        path = self._path(round_id)
        if path.exists():
            return _unpack(path.read_bytes())
        answered = self._answered(round_id)
        if answered and round_id.round <= max(answered):
            raise RoundAlreadyAnswered("this round was answered before")
        return None

    def put(self, round_id: RoundId, blocks: tuple[bytes, ...]) -> None:
        """Store atomically, synced to disk before the reply may be sent."""
        path = self._path(round_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(_pack(blocks))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        for old in sorted(self._answered(round_id))[:-_KEEP]:
            self._path(RoundId(round_id.run, old)).unlink(missing_ok=True)

    def _answered(self, round_id: RoundId) -> list[int]:
        folder = self._path(round_id).parent
        return [int(path.stem) for path in folder.glob("*.blocks")] if folder.is_dir() else []

    def _path(self, round_id: RoundId) -> Path:
        run = hashlib.sha256(round_id.run.encode()).hexdigest()[:32]
        return self._folder / run / f"{round_id.round:09d}.blocks"


def _pack(blocks: tuple[bytes, ...]) -> bytes:
    return b"".join([struct.pack("<I", len(blocks)),
                     *(struct.pack("<Q", len(block)) + block for block in blocks)])


def _unpack(stored: bytes) -> tuple[bytes, ...]:
    (count,) = struct.unpack_from("<I", stored)
    blocks, at = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", stored, at)
        blocks.append(stored[at + 8 : at + 8 + length])
        at += 8 + length
    return tuple(blocks)
