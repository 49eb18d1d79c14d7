"""Bring your own readings: a table, or a folder of them. Format: docs/data.md.

Every reading covers 15, 30 or 60 minutes and is named by their beginning. Times are the home's
own clock, with or without an offset from UTC; where the clock is set back, the hour that comes
twice is the mean of both, and where it is set forward an hour is absent.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conf.schema import TaskConfig
from learning.load_folders import files_of
from learning.load_readings import READINGS
from learning.tables import (
    OFFSET,
    Finding,
    TableError,
    file_digest,
    number,
    read_raw,
    row_number,
    rules,
    text,
)

LOADS = {"load_kwh": 1.0, "load_wh": 1e-3, "load_kw": None}
"""Column -> kWh per unit; None: mean power of the interval."""
INTERVALS_MINUTES = (15, 30, 60)
SHOWN_DAYS, _SHOWN_MINUTES = 7, 20 * 60
"""A change of a home's readings to another length is seen where so many days show either, and a
day shows it by so much of it."""
_RULES = ("load_checks.py", "load_folders.py", "load_readings.py", "load_registers.py",
          "load_table.py", "partner_names.py", "table_checks.py", "table_files.py", "tables.py")
_SET_BACK_MONTHS = (3, 4, 9, 10, 11)
_TIME = rf"^(\d{{4}}-\d{{2}}-\d{{2}})[ T](\d{{2}}:\d{{2}}(?::\d{{2}})?)(?:\.0+)?({OFFSET})?$"


@dataclass(frozen=True)
class LoadTable:
    """One parsed file. raw: as read; parsed: a row per reading with partner, customer, time (the
    local clock), offset (minutes east of UTC, null where the file says none), load (as read),
    temperature_c, row (as a person counts); null where a cell is empty or cannot be understood.
    unit: the column of the load."""

    path: Path
    raw: pl.DataFrame
    parsed: pl.DataFrame
    unit: str


def digest(path: Path | str) -> str:
    """SHA-256 over the names and bytes of all files; empty where this machine has none."""
    if not Path(path).exists():
        return ""
    state = hashlib.sha256()
    for file in files_of(path):
        state.update(file.name.encode() + b"\0" + bytes.fromhex(file_digest(file)))
    return state.hexdigest()


def cache_key(config: TaskConfig) -> str:
    """Names the checked partner files of one set of readings; what an older release let pass or
    read otherwise is checked again."""
    text_of_all = json.dumps([digest(str(config.path)), config.time_zone, *rules(_RULES)])
    return "readings-" + hashlib.sha256(text_of_all.encode()).hexdigest()[:16]


def read_load(path: Path, config: TaskConfig, partner: str | None = None,
              raw: pl.DataFrame | None = None) -> LoadTable:
    """One file; ``partner`` stands in for a missing partner column, else the file's name. ``raw``:
    some of its rows (tables.read_table). Raises TableError."""
    raw = read_raw(path, config.name) if raw is None else raw
    missing = [name for name in ("customer", "time") if name not in raw.columns]
    units = [name for name in LOADS if name in raw.columns]
    findings = [Finding("error", name, "the column is missing",
                        f"add it or rename one of: {', '.join(raw.columns)}") for name in missing]
    if len(units) != 1:
        what = "no column says the load" if not units else f"both {' and '.join(units)} are there"
        findings.append(Finding("error", "", what, f"keep exactly one of {', '.join(LOADS)}"))
    if not len(raw):
        findings.append(Finding("error", "", "the table has no rows", "add readings"))
    if findings:
        raise TableError(path, findings, partner, config.name)
    parsed = raw.select(
        row_number(path, raw),
        *(text(name) if name in raw.columns else pl.lit(partner or path.stem).alias(name)
          for name in ("partner", "customer")),
        *_times(raw.schema["time"]),
        number(units[0]).alias("load"),
        number("temperature_c") if "temperature_c" in raw.columns
        else pl.lit(None, pl.Float64).alias("temperature_c"),
    )
    return LoadTable(path, raw, _in_zone(parsed, config.time_zone), units[0])


def hourly(table: LoadTable) -> pl.DataFrame:
    """Canonical readings: hours of which every reading is there, negative loads as 0."""
    rows = _once(with_intervals(table.parsed.drop_nulls(("partner", "customer", "time", "load"))))
    factor = LOADS[table.unit]
    energy = pl.col("load") * (pl.col("minutes") / 60 if factor is None else factor)
    key = ("partner", "customer", "hour", "offset", "copy")
    return (
        # A clock without offsets shows an hour that comes twice by its repeated times alone.
        rows.with_columns(copy=pl.int_range(pl.len()).over("partner", "customer", "time", "offset"),
                      hour=pl.col("time").dt.truncate("1h"), energy=energy.clip(0.0))
        .group_by(*key)
        .agg(pl.col("energy").sum(), pl.col("temperature_c").mean(),
             (pl.len() == 60 // pl.col("minutes").first()).alias("whole"))
        .filter("whole")
        .group_by("partner", "customer", pl.col("hour").alias("time"))
        .agg(pl.col("energy").mean().alias("load_kwh"), pl.col("temperature_c").mean())
        .select(pl.col(name).cast(kind) for name, kind in READINGS.items())
        .sort("partner", "customer", "time")
    )


def _once(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` without exact repeats; but where a clock may have been set back, a reading that is
    there twice stays so: a load can be the same in both passes."""
    key = ("partner", "customer", "time", "offset")
    first = pl.struct(*key, "load").is_first_distinct()
    same = pl.col("load").n_unique().over(key) == 1
    second = pl.int_range(pl.len()).over(key) == 1
    night = rows.select(set_back()).to_series()
    doubled = rows.filter(night).select("row", second=same & second).filter("second")["row"]
    return rows.filter(first | pl.col("row").is_in(doubled.implode()))


def set_back() -> pl.Expr:
    """Whether the time, without an offset, lies where most clocks are set back: before 04:00 on a
    Sunday in spring or autumn."""
    time = pl.col("time")
    return (time.dt.weekday().eq(7) & (time.dt.hour() <= 3)
            & time.dt.month().is_in(_SET_BACK_MONTHS)
            & pl.col("offset").is_null()).fill_null(False)


def with_intervals(rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` with "minutes", the length of a reading: the most frequent distance of a customer's
    readings, the shorter of two equally frequent; null for a customer with one reading. Where a
    meter was changed for one of another length, each day has its own (:func:`_changed`)."""
    home = ("partner", "customer")
    steps = rows.select(*home, "time", moment=universal()).unique((*home, "moment")).sort(
        "moment").with_columns(day=pl.col("time").dt.date(), minutes=(
            pl.col("moment").shift(-1) - pl.col("moment")).dt.total_minutes().over(home))
    usual = (steps.drop_nulls("minutes").group_by(*home, "minutes").len()
             .sort("len", "minutes", descending=[True, False])
             .group_by(home, maintain_order=True).first())
    rows = rows.join(usual.drop("len"), on=home, how="left", maintain_order="left")
    changed = _changed(steps)
    if not len(changed):
        return rows
    possible = pl.col("minutes").is_in(INTERVALS_MINUTES)
    return rows.with_columns(day=pl.col("time").dt.date()).join(
        changed, on=(*home, "day"), how="left", maintain_order="left").with_columns(
        minutes=pl.when(possible).then(pl.coalesce("own", "minutes")).otherwise("minutes")).drop(
        "day", "own")


def _changed(steps: pl.DataFrame) -> pl.DataFrame:
    """The length "own" of every day of the homes whose readings change theirs. A gap must not look
    like a longer reading: a day shows a length if no two readings are closer and most of the day
    is there, and a home changes if two lengths are shown by a week of days each. A day that shows
    none, as that of the change, has the shorter of the lengths around it."""
    home, own = ("partner", "customer"), pl.col("own")
    days = steps.group_by(*home, "day").agg(
        pl.col("minutes").min().alias("own"),
        (pl.col("minutes") == pl.col("minutes").min()).sum().alias("there"))
    shown = own.is_in(INTERVALS_MINUTES) & (pl.col("there") * own >= _SHOWN_MINUTES)
    weeks = days.filter(shown).group_by(*home, "own").len().filter(pl.col("len") >= SHOWN_DAYS)
    both = weeks.group_by(home).len().filter(pl.col("len") > 1)
    known = days.join(both, on=home, how="semi").join(
        weeks.select(*home, "own", week=True), on=(*home, "own"), how="left")
    lengths = known.sort("day").with_columns(
        own=pl.when(shown & pl.col("week").is_not_null()).then("own"))
    return lengths.select(*home, "day", own=pl.min_horizontal(
        own.forward_fill().over(home), own.backward_fill().over(home)))


def universal() -> pl.Expr:
    """A moment that grows steadily where offsets are known: UTC; else the local clock."""
    return pl.col("time") - pl.duration(minutes=pl.col("offset").fill_null(0))


def _times(kind: pl.DataType) -> list[pl.Expr]:
    """"time" and "offset"."""
    column = pl.col("time")
    if isinstance(kind, pl.Datetime):
        local = column.dt.replace_time_zone(None).cast(pl.Datetime("us"))
        if kind.time_zone is None:
            return [local.alias("time"), pl.lit(None, pl.Int64).alias("offset")]
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return [local.alias("time"), (local - utc).dt.total_minutes().alias("offset")]
    parts = column.cast(pl.String).str.strip_chars()
    clock = parts.str.extract(_TIME, 1) + " " + (parts.str.extract(_TIME, 2) + ":00").str.slice(
        0, 8)
    zone = parts.str.extract(_TIME, 3).str.replace("Z", "+00:00", literal=True)
    minutes = (zone.str.slice(1, 2).cast(pl.Int64) * 60
               + zone.str.slice(-2).cast(pl.Int64))
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    return [clock.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
            .alias("time"), (sign * minutes).alias("offset")]


def _in_zone(parsed: pl.DataFrame, zone: str) -> pl.DataFrame:
    """Times with an offset on the clock of ``zone``; others are that clock already."""
    if not zone:
        return parsed
    utc = universal().dt.replace_time_zone("UTC")
    local = utc.dt.convert_time_zone(zone).dt.replace_time_zone(None)
    known = pl.col("offset").is_not_null()
    return parsed.with_columns(
        time=pl.when(known).then(local).otherwise(pl.col("time")),
        offset=pl.when(known).then((local - utc.dt.replace_time_zone(None)).dt.total_minutes()))
