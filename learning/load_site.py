"""Reading the one file of readings that a partner's site holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from conf.schema import TaskConfig
from learning.large_table import errors_of, is_large, raw_pieces, told
from learning.load_checks import MIXED_CURE, check_rows
from learning.load_readings import FAR_DAYS, MAX_LOAD_KWH, READINGS
from learning.load_registers import only_rising
from learning.load_table import LOADS, hourly, read_load
from learning.pieces import Pieces
from learning.site_table import as_written, own_partner
from learning.table_checks import foreign
from learning.tables import Finding, TableError, are_names

_COLUMNS = ("partner", "customer", "time", "temperature_c")


def scan_readings(path: Path, config: TaskConfig,
                  site: str | None = None) -> tuple[str, Pieces]:
    """Partner and canonical readings of the file at the ``site`` of a partner: as written by
    ``split_by_partner``, or a table (docs/data.md) in which the partner column may be missing
    (the site's name stands in, or the file's where no site is named). Raises TableError."""
    pieces = as_written(path, READINGS, _sound())
    if pieces is not None:
        return own_partner(path, site), pieces
    if is_large(path):
        return _large(path, config, site)
    table = read_load(path, config, site)
    errors = [finding for finding in check_rows(table, config) if finding.severity == "error"]
    errors += foreign(table.parsed["partner"].drop_nulls().unique().to_list(), site)
    if errors:
        raise TableError(path, errors, site, config.name)
    return str(table.parsed["partner"][0]), Pieces.of(hourly(table))


def _large(path: Path, config: TaskConfig, site: str | None) -> tuple[str, Pieces]:
    raw = raw_pieces(path, (*_COLUMNS, *LOADS), config.name)
    names, clocks = set[str](), set[bool]()

    def check(piece: pl.DataFrame) -> list[Finding]:
        table = read_load(path, config, site, piece)
        names.update(table.parsed["partner"].drop_nulls().unique())
        known = table.parsed.filter(pl.col("time").is_not_null())["offset"]
        clocks.update(known.is_null().unique())
        return check_rows(table, config)

    errors = errors_of(told(raw, path, "checking"), check)
    if len(clocks) > 1 and not any(one.cure == MIXED_CURE for one in errors):
        errors.append(Finding("error", "time", "some homes' times say their offset from UTC, "
                              "others' do not", MIXED_CURE))
    errors += foreign(sorted(names), site)
    if errors:
        raise TableError(path, errors, site, config.name)
    return names.pop(), Pieces(lambda: (hourly(read_load(path, config, site, piece))
                                        for piece in raw))


def _sound() -> pl.Expr:
    """Whether the rows are full hours, home by home, each in the order of its time, with no hour
    twice and none far from the others, and finite loads that a home can have, none a register's."""
    time, customer, degrees = pl.col("time"), pl.col("customer"), pl.col("temperature_c")
    same = (customer == customer.shift()).fill_null(False)
    homes, step = customer.filter(~same), time.diff()
    return pl.all_horizontal(
        are_names(homes), homes.is_unique().all(), time.null_count() == 0,
        (time.dt.truncate("1h") == time).all(),
        (~same | step.is_between(pl.duration(hours=1), pl.duration(days=FAR_DAYS))).all(),
        pl.col("load_kwh").is_between(0, MAX_LOAD_KWH).fill_null(False).all(),
        ~only_rising(pl.col("load_kwh"), same, time).any(),
        degrees.is_finite().all())
