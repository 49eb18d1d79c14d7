"""Rows of many customers behind each other: in memory while they are few, else on disk."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from learning.partner_file import cache_folder

MEMORY_BYTES = 2**28
"""More rows go to disk: 100,000 homes have 7 GB of readings."""


@dataclass(frozen=True)
class HeldRows:
    """Rows of one type. Those on disk are read where they are asked for and never mapped, so that
    they do not count as memory; the file has no name and goes with the process."""

    dtype: np.dtype
    memory: NDArray[np.generic] | None
    file: IO[bytes] | None

    def read(self, first: int, end: int) -> NDArray[np.generic]:
        """Rows [first, end), (end - first,) and the shape of the type. Threads may read at once.
        Raises OSError."""
        if self.memory is not None:
            return self.memory[first:end]
        assert self.file is not None
        size, place = (end - first) * self.dtype.itemsize, first * self.dtype.itemsize
        content = bytearray()
        while len(content) < size:
            some = os.pread(self.file.fileno(), size - len(content), place + len(content))
            if not some:
                raise OSError("the file of rows held on disk is cut short")
            content += some
        return np.frombuffer(content, self.dtype)


class RowWriter:
    """Takes rows and, in the end, gives what holds them."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._memory: list[NDArray[np.generic]] = []
        self._file: IO[bytes] | None = None
        self.rows = 0

    def append(self, rows: NDArray[np.generic]) -> None:
        """Raises OSError where the disk is full."""
        self._memory.append(np.ascontiguousarray(rows))
        self.rows += len(rows)
        if self._file is None and self.rows * self._dtype.itemsize > MEMORY_BYTES:
            self._file = unnamed_file()
        if self._file is not None:
            for part in self._drained():
                self._file.write(part.tobytes())

    def done(self) -> HeldRows:
        if self._file is not None:
            self._file.flush()
            held = HeldRows(self._dtype, None, self._file)
            weakref.finalize(held, self._file.close)
            return held
        parts = list(self._drained())
        base = self._dtype.subdtype or (self._dtype, ())
        empty = np.zeros((0, *base[1]), base[0])
        return HeldRows(self._dtype, np.concatenate([empty, *parts]), None)

    def _drained(self) -> Iterator[NDArray[np.generic]]:
        parts, self._memory = self._memory, []
        yield from parts


def unnamed_file() -> IO[bytes]:
    """Beside the data that can be made again; where that cannot be written, where the system has
    temporary files. Nothing is left of it when it is closed or the process ends."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()
