"""Readings that are no loads but a meter's register: what it has counted since it was put in."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from learning.tables import Finding

DAYS = 7
"""A register shows by never falling for so many days, on each of which it rises. No home's load
does: it is lower at night, or an empty home's is the same for days."""
_HOME = ("partner", "customer")


def only_rising(load: pl.Expr, same: pl.Expr, time: pl.Expr) -> pl.Expr:
    """Whether the row ends a stretch that shows a register. Rows lie home by home in the order of
    ``time``; ``same``: of the same home as the row before. Starting at 0, or anew because the
    meter was changed, makes no difference."""
    rising = same & (load > load.shift())
    begins = (~same | (load < load.shift())).fill_null(True)
    day = time.dt.date()
    risen = pl.when(rising).then(day).forward_fill().shift()
    days = (rising & (risen != day).fill_null(True)).cum_sum()
    days_before, since = (pl.when(begins).then(value).forward_fill() for value in (days, time))
    return (days - days_before >= DAYS) & (time - since >= pl.duration(days=DAYS))


def registers(parsed: pl.DataFrame, unit: str, moment: pl.Expr) -> Iterator[Finding]:
    """The homes whose readings (partner, customer, load, and the ``moment`` of each) are those of
    a register."""
    rows = parsed.with_columns(moment=moment).drop_nulls((*_HOME, "moment", "load")).sort(
        *_HOME, "moment")
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in _HOME).fill_null(
        False)
    shown = rows.filter(only_rising(pl.col("load"), same, pl.col("moment")))
    homes = shown.select(pl.struct(_HOME).n_unique()).item()
    if homes:
        name = shown["customer"][0]
        yield Finding(
            "error", unit, f"readings of {homes:,} homes ({name!r} for one) never fall for "
            f"{DAYS} days or more: they are a meter's register, what it has counted so far",
            "give differences: each reading less the one before it")
