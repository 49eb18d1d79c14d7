"""A large table in pieces that hold all rows of their customers, read as they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from learning.held_rows import unnamed_file

PIECE_ROWS = 2**20
"""About so many rows a piece has; more where one customer does."""
_MOST_FILES = 256
"""Open at once."""


@dataclass(frozen=True)
class Pieces:
    """Rows of a table that need not fit into memory. ``frames`` gives them anew each time."""

    frames: Callable[[], Iterable[pl.DataFrame]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> Pieces:
        return cls(lambda: (frame,))

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return iter(self.frames())

    def collect(self) -> pl.DataFrame:
        """All rows at once: for small tables."""
        return pl.concat(list(self))


def by_customer(path: Path, rows: int = PIECE_ROWS) -> Pieces:
    """The rows of a canonical Parquet file, those of a customer in the order of the file. Where
    they do not follow each other in it, they are sorted first, on disk if they are many."""
    runs, names = 0, set[str]()
    last = None
    for frame in _batches(path, rows, ["customer"]):
        customer = frame["customer"]
        begins = (customer != customer.shift()).fill_null(True)
        runs += int(begins.sum()) - (runs > 0 and customer[0] == last)
        names.update(customer.filter(begins))
        last = customer[-1]
    if runs == len(names):
        return Pieces(lambda: _following(_batches(path, rows)))
    return grouped(lambda: _batches(path, rows), rows)


def grouped(batches: Callable[[], Iterable[pl.DataFrame]], rows: int = PIECE_ROWS,
            owner: str = "customer") -> Pieces:
    """Rows whose ``owner`` (null is one too) may lie anywhere: in one piece if they are few, else
    by a hash of the owner through files that go with what is returned. Raises OSError."""
    few, count = list[pl.DataFrame](), 0
    for frame in batches():
        count += len(frame)
        if count <= 2 * rows:
            few.append(frame)
        else:
            few.clear()
    if count <= 2 * rows:
        return Pieces.of(pl.concat(few).sort(owner, maintain_order=True))
    buckets = _Buckets(min(-(-count // rows), _MOST_FILES), owner)
    for frame in batches():
        buckets.add(frame)
    buckets.close()
    return Pieces(buckets.frames)


class _Buckets:
    """Files without names, one a bucket; they are closed when nobody reads them any more."""

    def __init__(self, count: int, owner: str) -> None:
        self._owner = owner
        self._files = [unnamed_file() for _ in range(count)]
        self._writers: list[pa.ipc.RecordBatchStreamWriter] = []
        for file in self._files:
            weakref.finalize(self, file.close)

    def add(self, frame: pl.DataFrame) -> None:
        number = frame[self._owner].hash(seed=0) % len(self._files)
        parts = frame.with_columns(_bucket=number).partition_by(
            "_bucket", as_dict=True, include_key=False, maintain_order=True)
        if not self._writers:
            schema = frame.to_arrow().schema
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writers = [pa.ipc.new_stream(file, schema, options=options)
                             for file in self._files]
        for (place,), part in parts.items():
            self._writers[place].write_table(part.to_arrow())

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def frames(self) -> Iterator[pl.DataFrame]:
        for file in self._files:
            file.seek(0)
            with pa.ipc.open_stream(file) as stream:
                table = stream.read_all()
            if len(table):
                yield pl.DataFrame(pl.from_arrow(table)).sort(self._owner, maintain_order=True)


def _batches(path: Path, rows: int, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            if len(batch):
                yield pl.DataFrame(pl.from_arrow(batch))


def _following(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows cut where a customer ends."""
    rest: pl.DataFrame | None = None
    for frame in batches:
        frame = frame if rest is None else pl.concat([rest, frame])
        run = frame["customer"].rle_id()
        last = int((run == run[-1]).arg_max() or 0)
        rest = frame[last:]
        if last:
            yield frame[:last]
    if rest is not None:
        yield rest
