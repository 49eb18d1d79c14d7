"""A site's own table that is too large to be read at once: in pieces of whole customers, checked
piece by piece. Every check of a row compares it with rows of its own customer at most."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from learning.pieces import PIECE_ROWS, Pieces, grouped
from learning.table_files import first_row, is_parquet, no_table, plain_name, separator
from learning.tables import ROW, SHOWN, Finding, text, unreadable

LARGE_BYTES, LARGE_ROWS = 2**28, 4 * PIECE_ROWS
"""Of a CSV, and of a Parquet file: what is smaller is read at once."""
_TELL_S = 5.0
log = logging.getLogger("veilsum.data")


def is_large(path: Path) -> bool:
    """Whether the file is read in pieces. False for what is no table."""
    if no_table(path):
        return False
    try:
        return (pq.read_metadata(path).num_rows > LARGE_ROWS if is_parquet(path)
                else path.stat().st_size > LARGE_BYTES)
    except pa.ArrowException:
        return False


def raw_pieces(path: Path, wanted: Iterable[str], task: str = "") -> Pieces:
    """The ``wanted`` columns that are there, as read, and each row's number (ROW). Raises
    TableError."""
    def batches() -> Iterator[pl.DataFrame]:
        scan = pl.scan_parquet(path, glob=False) if is_parquet(path) else pl.scan_csv(
            path, infer_schema=False, separator=separator(path), glob=False)
        names = {name: plain_name(name) for name in scan.collect_schema().names()}
        kept = scan.with_row_index(ROW, first_row(path)).rename(names).select(
            ROW, *(name for name in names.values() if name in columns))
        for frame in told(kept.collect_batches(chunk_size=PIECE_ROWS), path, "reading"):
            yield frame.with_columns(_OWNER_OF)

    columns = set(wanted)
    try:
        found = grouped(batches, owner=OWNER)
    except (pl.exceptions.PolarsError, pa.ArrowException, UnicodeError) as error:
        raise unreadable(path, error, task) from None
    return Pieces(lambda: (frame.drop(OWNER).sort(ROW) for frame in found))


OWNER = "OWNER"
_OWNER_OF = text("customer").alias(OWNER)


def told(frames: Iterable[pl.DataFrame], path: Path, what: str) -> Iterator[pl.DataFrame]:
    """``frames``, while the log says every few seconds how far they are."""
    rows, last = 0, time.monotonic() - _TELL_S / 2
    for frame in frames:
        yield frame
        rows += len(frame)
        if time.monotonic() - last > _TELL_S:
            last = time.monotonic()
            log.warning("%s %s: %s rows so far", what, path.name, f"{rows:,}")


def errors_of(pieces: Iterable[pl.DataFrame],
              check: Callable[[pl.DataFrame], Sequence[Finding]]) -> list[Finding]:
    """Errors of all pieces, those of one kind and column as one. What counts customers names
    those of the first piece that has any."""
    found: dict[tuple[str, str], Finding] = {}
    for piece in pieces:
        for one in check(piece):
            if one.severity != "error":
                continue
            known = found.get((one.column, one.cure))
            found[one.column, one.cure] = one if known is None else replace(
                known, count=known.count + one.count,
                rows=tuple(sorted((*known.rows, *one.rows))[:SHOWN]))
    return list(found.values())
