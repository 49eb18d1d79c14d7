"""Reading the one file that a partner's site holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa

from learning.large_table import errors_of, is_large, raw_pieces, told
from learning.partner_file import COLUMNS, partner_of
from learning.pieces import Pieces, by_customer
from learning.table_checks import FAR_DAYS, check_customers, check_rows, far_days, foreign
from learning.tables import (
    OPTIONAL,
    REQUIRED,
    Finding,
    TableError,
    are_names,
    canonical,
    read_table,
)


def scan_partner(path: Path, site: str | None = None) -> tuple[str, Pieces]:
    """Partner and canonical events of the file at the ``site`` of a partner: as written by
    ``split_by_partner``, or a table (docs/data.md) in which the partner column may be missing
    (the site's name stands in, or the file's where no site is named). Raises TableError."""
    customer = pl.col("customer")
    sound = pl.all_horizontal(
        pl.col("time").null_count() == 0,
        pl.col("value").null_count() == 0,
        are_names(customer.unique(maintain_order=True)),
        are_names(pl.col("category").unique(maintain_order=True)),
        ((pl.col("quantity") > 0) & pl.col("quantity").is_finite()).fill_null(False).all(),
        ((pl.col("value") >= 0) & pl.col("value").is_finite()).all())
    pieces = as_written(path, COLUMNS, sound, FAR_DAYS)
    if pieces is not None:
        return own_partner(path, site), pieces
    if is_large(path):
        return _large(path, site)
    table = read_table(path, site=site or path.stem)
    errors = [finding for finding in check_rows(table) if finding.severity == "error"]
    errors += foreign(table.parsed["partner"].drop_nulls().unique().to_list(), site)
    if errors:
        raise TableError(path, errors, site)
    return str(table.parsed["partner"][0]), Pieces.of(canonical(table))


def _large(path: Path, site: str | None) -> tuple[str, Pieces]:
    owner = site or path.stem
    raw = raw_pieces(path, (*REQUIRED, *OPTIONAL))
    names, days = set[str](), list[pl.DataFrame]()

    def check(piece: pl.DataFrame) -> list[Finding]:
        table = read_table(path, owner, piece)
        names.update(table.parsed["partner"].drop_nulls().unique())
        days.append(table.parsed.select(
            "partner", pl.col("time").dt.truncate("1d"), "row").drop_nulls().group_by(
                "partner", "time").agg(pl.col("row").min(), pl.len()))
        return check_customers(table)

    errors = [*errors_of(told(raw, path, "checking"), check), *far_days(pl.concat(days)),
              *foreign(sorted(names), site)]
    if errors:
        raise TableError(path, errors, site)
    return names.pop(), Pieces(lambda: (canonical(read_table(path, owner, piece))
                                        for piece in raw))


def as_written(path: Path, columns: Mapping[str, pl.DataType], sound: pl.Expr,
               far_days: int | None = None) -> Pieces | None:
    """The rows of a file that holds what ``split_by_partner`` writes for one partner, else None.

    A Parquet file of somebody's own can have the very same columns, and a mark in it could be
    copied. So nothing is taken on trust: there is one partner, and ``sound``, one truth about all
    rows of some customers, says that they are what the checks of a table leave. far_days: the
    longest time, if any is too long, between two rows that follow.
    """
    if path.suffix != ".parquet" or not path.is_file():
        return None
    try:
        if dict(pl.scan_parquet(path, glob=False).collect_schema()) != dict(columns):
            return None
        pieces = by_customer(path)
        trusted = _all_sound(pieces, sound, far_days)
    except (pl.exceptions.PolarsError, pa.ArrowException):
        return None
    return pieces if trusted else None


def _all_sound(pieces: Pieces, sound: pl.Expr, far_days: int | None) -> bool:
    partner, time = pl.col("partner"), pl.col("time")
    name, days = None, list[pl.DataFrame]()
    for piece in pieces:
        name = name or piece["partner"][0]
        one = (partner == name).fill_null(False).all() & are_names(pl.lit(name))
        if not piece.select(one & sound).item():
            return False
        if far_days is not None:
            days.append(piece.group_by(day=time.dt.date()).agg(
                first=time.min(), last=time.max()))
    if not days:
        return name is not None
    known = pl.concat(days).group_by("day").agg(
        pl.col("first").min(), pl.col("last").max()).sort("day")
    gap = (pl.col("first") - pl.col("last").shift()).max() <= pl.duration(days=far_days)
    return bool(known.select(gap.fill_null(True)).item())


def own_partner(path: Path, site: str | None) -> str:
    """The partner of canonical rows. Raises TableError for another than the site's."""
    name = partner_of(path)
    errors = foreign([name], site)
    if errors:
        raise TableError(path, errors, site)
    return name
