"""Secret bytes that are overwritten when they are no longer needed.

They lie in anonymous private memory of their own: Python never moves or copies them, core dumps
leave them out (Linux), and a forked child has its own copy, so that wiping in one process takes
nothing from another.

What this cannot reach: copies that libraries make while they compute (OpenSSL's HMAC and AES
states; SEAL's secret key, which SEAL clears), pages that were swapped out, and a process that is
killed, whose pages the kernel clears before their next use.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Self

Readable = bytes | bytearray | memoryview


class SecretWiped(RuntimeError):
    """The secret was closed; load the key again."""


class SecretBytes:
    """A copy of ``content``; whoever passes it wipes what it holds itself."""

    __slots__ = ("_map", "_size")

    def __init__(self, content: Readable) -> None:
        self._size = len(content)
        self._map: mmap.mmap | None = mmap.mmap(
            -1, max(1, self._size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_DONTDUMP"):
            self._map.madvise(mmap.MADV_DONTDUMP)
        self._map[: self._size] = content

    @property
    def view(self) -> memoryview:
        """The bytes in place, read-only; zeros after :meth:`close`. Raises SecretWiped."""
        if self._map is None:
            raise SecretWiped("this key was wiped; load it again")
        return memoryview(self._map)[: self._size].toreadonly()

    def close(self) -> None:
        """Overwrite with zeros. Twice is once."""
        found, self._map = self._map, None
        if found is not None:
            found[:] = bytes(len(found))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_map", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return "SecretBytes()"


def random_bytes(buffer: memoryview) -> None:
    """Fill from the operating system's randomness, without a copy elsewhere."""
    with Path("/dev/urandom").open("rb", buffering=0) as source:
        if source.readinto(buffer) != len(buffer):
            raise OSError("the operating system gave too little randomness")


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer that held something secret for a moment."""
    buffer[:] = bytes(len(buffer))
