"""Reading the one file that a partner's site holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from learning.partner_file import COLUMNS, partner_of
from learning.table_checks import check_rows
from learning.tables import Finding, TableError, canonical, parse, read_raw


def scan_partner(path: Path) -> tuple[str, pl.LazyFrame]:
    """Partner and canonical events of one file: as written by ``split_by_partner``, or a table
    (docs/data.md) in which the partner column may be missing (the file's name stands in).
    Raises TableError."""
    if path.suffix == ".parquet" and path.is_file():
        try:
            frame = pl.scan_parquet(path)
            schema = dict(frame.collect_schema())
        except pl.exceptions.PolarsError:
            schema = {}
        if schema == dict(COLUMNS):
            return partner_of(path), frame
    table = parse(path, read_raw(path), ("customer", "time", "category"))
    errors = [finding for finding in check_rows(table) if finding.severity == "error"]
    names = table.parsed["partner"].drop_nulls().unique()
    if len(names) > 1:
        errors.append(Finding("error", "partner", f"holds {len(names)} partners",
                              "a site's file holds its own customers only"))
    if errors:
        raise TableError(path, errors)
    return str(names[0]), canonical(table).lazy()
