"""Reading the one file that a partner's site holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from learning.partner_file import COLUMNS
from learning.table_checks import FAR_DAYS, check_rows, foreign
from learning.tables import TableError, are_names, canonical, read_table


def scan_partner(path: Path, site: str | None = None) -> tuple[str, pl.LazyFrame]:
    """Partner and canonical events of the file at the ``site`` of a partner: as written by
    ``split_by_partner``, or a table (docs/data.md) in which the partner column may be missing
    (the site's name stands in, or the file's where no site is named). Raises TableError."""
    sound = pl.all_horizontal(
        pl.col("time").null_count() == 0,
        (pl.col("time").sort().diff().max() <= pl.duration(days=FAR_DAYS)).fill_null(True),
        pl.col("value").null_count() == 0,
        *(are_names(pl.col(name).unique(maintain_order=True)) for name in ("customer", "category")),
        ((pl.col("quantity") > 0) & pl.col("quantity").is_finite()).fill_null(False).all(),
        ((pl.col("value") >= 0) & pl.col("value").is_finite()).all())
    frame = as_written(path, COLUMNS, sound)
    if frame is not None:
        return own_partner(path, frame, site), frame
    table = read_table(path, site=site or path.stem)
    errors = [finding for finding in check_rows(table) if finding.severity == "error"]
    errors += foreign(table.parsed["partner"].drop_nulls().unique().to_list(), site)
    if errors:
        raise TableError(path, errors, site)
    return str(table.parsed["partner"][0]), canonical(table).lazy()


def as_written(path: Path, columns: Mapping[str, pl.DataType],
               sound: pl.Expr) -> pl.LazyFrame | None:
    """The rows of a file that holds what ``split_by_partner`` writes for one partner, else None.

    A Parquet file of somebody's own can have the very same columns, and a mark in it could be
    copied. So nothing is taken on trust: there is one partner, and ``sound``, one truth about
    all rows, says that they are what the checks of a table leave.
    """
    if path.suffix != ".parquet" or not path.is_file():
        return None
    frame = pl.scan_parquet(path, glob=False)
    try:
        if dict(frame.collect_schema()) != dict(columns):
            return None
        partner = pl.col("partner")
        one = (partner == partner.first()).fill_null(False).all() & are_names(partner.first())
        trusted = frame.select(one & sound).collect().item()
    except pl.exceptions.PolarsError:
        return None
    return frame if trusted else None


def own_partner(path: Path, frame: pl.LazyFrame, site: str | None) -> str:
    """The partner of canonical rows. Raises TableError for another than the site's."""
    name = str(frame.select(pl.col("partner").first()).collect().item())
    errors = foreign([name], site)
    if errors:
        raise TableError(path, errors, site)
    return name
