"""What is wrong with a table of readings, by row and column, and what cures it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from conf.schema import TaskConfig
from learning.load_features import HOURS, MONTH, WEEK
from learning.load_folders import Part, check_parts, files_of
from learning.load_readings import FAR_DAYS, MAX_LOAD_KWH, far_off
from learning.load_registers import registers
from learning.load_table import (
    INTERVALS_MINUTES,
    LOADS,
    SHOWN_DAYS,
    LoadTable,
    hourly,
    read_load,
    set_back,
    universal,
    with_intervals,
)
from learning.table_checks import federation, row_findings, shared_names
from learning.tables import Checked, Finding, TableError

FEW_HOMES = 10
SHORT_DAYS = 2 * MONTH
MIXED_CURE = "write all times with an offset, or none"
_COLUMNS = ("partner", "customer", "time")


def check(config: TaskConfig, site: str | None = None) -> Checked:
    """All findings about the readings of ``config.path``, errors first. ``site``: the partner who
    has the file to itself, if one does."""
    found, readings = _read_all(Path(str(config.path)), config, site)
    if readings is None:
        return Checked(tuple(found))
    found += check_partners(readings, config, site)
    counts = readings.group_by("partner").agg(pl.col("customer").n_unique(), pl.len()).sort(
        "partner")
    found.sort(key=lambda finding: finding.severity != "error")
    return Checked(tuple(found), tuple(counts.iter_rows()), "hours",
                   f"Of each home's days the last {config.test_fraction:.1%} test, the "
                   f"{config.validation_fraction:.1%} before validate, those before train.")


def checked_readings(config: TaskConfig) -> pl.DataFrame:
    """Canonical readings of all partners. Raises TableError with every error found."""
    found, readings = _read_all(Path(str(config.path)), config)
    if readings is not None:
        found += check_partners(readings, config)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors or readings is None:
        raise TableError(str(config.path), errors, task=config.name)
    return readings


def _read_all(path: Path, config: TaskConfig,
              site: str | None = None) -> tuple[list[Finding], pl.DataFrame | None]:
    """Findings of every file, by its name where there are several, and all readings."""
    found: list[Finding] = []
    parts: dict[str, Part] = {}
    try:
        files = files_of(path)
    except TableError as error:
        return list(error.findings), None
    for file in files:
        findings, part = _read(file, config, site)
        found += findings if len(files) == 1 else [
            replace(finding, text=f"{file.name}: {finding.text}") for finding in findings]
        if part is not None:
            parts[file.name] = part
    if not parts:
        return found, None
    return [*found, *check_parts(parts)], pl.concat(part.readings for part in parts.values())


def _read(file: Path, config: TaskConfig,
          site: str | None) -> tuple[list[Finding], Part | None]:
    try:
        table = read_load(file, config, site)
    except TableError as error:
        return list(error.findings), None
    found = check_rows(table, config)
    if any(finding.severity == "error" for finding in found):
        return found, None
    readings = hourly(table)
    return [*found, *_partial(table, readings)], Part(readings, "partner" in table.raw.columns)


def check_rows(table: LoadTable, config: TaskConfig) -> list[Finding]:
    """What the rows of one file show."""
    rows = with_intervals(table.parsed)
    counted = list(registers(table.parsed, table.unit, universal()))
    # No other unit makes a load of a register.
    sizes = counted or _sizes(table, rows["minutes"])
    return [*_cells(table), *_grid(rows), *_changes(rows), *_far(table), *_negative(table), *sizes,
            *_repeats(table), *_zones(table, config)]


def check_partners(readings: pl.DataFrame, config: TaskConfig,
                   site: str | None = None) -> list[Finding]:
    """What only all readings together show."""
    partners = readings.group_by("partner").agg(pl.col("customer").n_unique()).sort("partner")
    if not len(readings):
        return [Finding("error", "", "no hour is complete", "give every reading of an hour")]
    found = federation(partners["partner"].to_list(), site)
    for partner, count in partners.iter_rows():
        if count < FEW_HOMES:
            found.append(Finding("warning", "customer", f"{partner!r} has only {count} homes",
                                 "its results will be uncertain, and noise weighs more"))
    return [*found, *shared_names(readings), *_idle(readings), *_spans(readings)]


def _cells(table: LoadTable) -> Iterator[Finding]:
    cures = {"time": "write 2024-03-26 14:15 or 2024-03-26T14:15:00+01:00 (at most 14:00 off UTC)",
             "load": "write a number with a decimal point, such as 0.35"}
    for name, column in (("partner", "partner"), ("customer", "customer"), ("time", "time"),
                         ("load", table.unit), ("temperature_c", "temperature_c")):
        if column not in table.raw.columns:
            continue
        raw = table.raw[column].cast(pl.String).str.strip_chars()
        empty = raw.is_null() | raw.str.to_lowercase().is_in(["", "nan", "null"])
        unknown = table.parsed[name].is_null()
        if name in ("load", "temperature_c"):
            yield from row_findings(table.parsed, empty & unknown, "warning", column, "is empty",
                                    "it counts as not measured")
        else:
            yield from row_findings(table.parsed, empty & unknown, "error", column, "is empty",
                                    "fill it in or drop the row")
        bad = unknown & ~empty
        example = raw.filter(bad).head(1).to_list()
        yield from row_findings(table.parsed, bad, "error", column,
                                f"cannot read {example[0]!r}" if example else "",
                                cures.get(name, "correct it"))


def _grid(rows: pl.DataFrame) -> Iterator[Finding]:
    odd = rows["minutes"].is_not_null() & ~rows["minutes"].is_in(INTERVALS_MINUTES)
    example = rows.filter(odd)["minutes"].head(1).to_list()
    yield from row_findings(rows, odd, "error", "time",
                            f"a customer's readings are {example[0]} minutes apart" if example
                            else "", "give readings of 15, 30 or 60 minutes")
    off = ~_begins(rows, pl.col("time")) & ~odd
    elsewhere = off & rows["offset"].is_not_null() & _begins(rows, universal())
    yield from row_findings(rows, off & ~elsewhere, "error", "time",
                            "is not at a full quarter, half or hour, as its readings' length asks",
                            "name each reading by its beginning, such as 14:15; readings that "
                            f"change their length need {SHOWN_DAYS} days of either")
    for minutes in rows.filter(elsewhere)["offset"].head(1):
        clock = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        yield from row_findings(
            rows, elsewhere, "error", "time", "is where readings of this length begin by UTC, but "
            f"not by the homes' clock, which stands {clock} from it", "give shorter readings, or "
            f"choose a clock of full hours beside it: task.time_zone=Etc/GMT{-(minutes // 60):+d}")


def _changes(rows: pl.DataFrame) -> Iterator[Finding]:
    """Homes whose readings change their length, which is also how a week of gaps could look."""
    lengths = rows.drop_nulls("minutes").group_by("partner", "customer").agg(
        pl.col("minutes").unique().sort(descending=True)).filter(pl.col("minutes").list.len() > 1)
    if len(lengths):
        named = " and ".join(map(str, lengths["minutes"].list.explode().unique().sort(
            descending=True)))
        yield Finding("warning", "time", f"readings of {len(lengths):,} homes change their length "
                      f"({named} minutes)", "each day counts by its own; if they do not, and "
                      f"readings are missing all through {SHOWN_DAYS} days or more, drop those "
                      "days")


def _partial(table: LoadTable, readings: pl.DataFrame) -> Iterator[Finding]:
    """Homes much of whose readings are in no hour that is complete, wherever these lie."""
    home = ("partner", "customer")
    touched = table.parsed.drop_nulls((*home, "time", "load")).group_by(home).agg(
        pl.col("time").dt.truncate("1h").n_unique().alias("touched"))
    kept = readings.group_by(home).agg(pl.len().alias("whole"))
    homes = touched.join(kept, on=home, how="left").with_columns(pl.col("whole").fill_null(0))
    lossy = homes.filter(pl.col("whole") < 0.9 * pl.col("touched"))
    if len(lossy):
        share = 1 - lossy["whole"].sum() / lossy["touched"].sum()
        yield Finding("warning", "time", f"{len(lossy):,} homes have readings in hours that are "
                      f"not complete ({share:.0%} of their hours), which do not count",
                      "give every reading of an hour; a change of their length is seen where "
                      f"{SHOWN_DAYS} days or more show each")


def _begins(rows: pl.DataFrame, clock: pl.Expr) -> pl.Series:
    """Whether a reading of the home's length can begin where ``clock`` stands."""
    since_hour = clock.dt.minute().cast(pl.Int64) * 60 + clock.dt.second()
    return rows.select(((since_hour % (pl.col("minutes") * 60)) == 0).fill_null(True)).to_series()


def _far(table: LoadTable) -> Iterator[Finding]:
    far = far_off(table.parsed)
    for time in table.parsed.filter(far)["time"].head(1).dt.to_string("%Y-%m-%d %H:%M"):
        yield from row_findings(
            table.parsed, far, "error", "time", f"{time} lies more than {FAR_DAYS} days from the "
            "home's other readings", "correct the date or drop the row")


def _negative(table: LoadTable) -> Iterator[Finding]:
    yield from row_findings(table.parsed, (table.parsed["load"] < 0).fill_null(False), "warning",
                            table.unit, "is below 0",
                            "it counts as 0; power fed into the grid is no load")


def _sizes(table: LoadTable, minutes: pl.Series) -> Iterator[Finding]:
    load, factor = table.parsed["load"], LOADS[table.unit]
    # What an hour of such readings would be: a quarter of an hour is not to hide four times more.
    hour = load if factor is None else load * factor * 60 / minutes.fill_null(60)
    yield from row_findings(table.parsed, (hour > MAX_LOAD_KWH).fill_null(False), "error",
                            table.unit, f"is above {MAX_LOAD_KWH:,.0f} kWh an hour",
                            "check the unit: load_wh is for Wh")
    usual = hour.filter(hour > 0).median()
    if isinstance(usual, float) and not 0.005 < usual < 100:
        yield Finding("warning", table.unit, f"half of all readings are around {usual:g} kWh an "
                      "hour, which is unusual for homes",
                      "check the unit: load_kwh, load_wh or load_kw")


def _repeats(table: LoadTable) -> Iterator[Finding]:
    key = [*_COLUMNS, "offset"]
    again = ~table.parsed.select(pl.struct(key).is_first_distinct()).to_series()
    exact = ~table.parsed.select(pl.struct([*key, "load"]).is_first_distinct()).to_series()
    complete = table.parsed.select(pl.all_horizontal(pl.col(_COLUMNS).is_not_null())).to_series()
    night = table.parsed.select(set_back()).to_series()
    yield from row_findings(table.parsed, exact & complete & ~night, "warning", "",
                            "repeats an earlier reading exactly", "it counts once")
    yield from row_findings(table.parsed, again & complete & night, "warning", "time",
                            "comes twice, as where a clock is set back",
                            "the hour is the mean of both; times with an offset leave no doubt")
    differs = again & ~exact & complete & ~night
    cure = "keep one reading per customer and time"
    if table.parsed["offset"].filter(differs).has_nulls():
        cure += "; where a clock was set back, write times with their offset from UTC"
    yield from row_findings(table.parsed, differs, "error", "time", "has another reading already",
                            cure)


def _zones(table: LoadTable, config: TaskConfig) -> Iterator[Finding]:
    offset, known = table.parsed["offset"], table.parsed["time"].is_not_null()
    some, none = offset.is_not_null() & known, offset.is_null() & known
    if some.any() and none.any():
        few = some if some.sum() < none.sum() else none
        yield from row_findings(table.parsed, few, "error", "time",
                                "says its offset from UTC as other rows do not, or the reverse",
                                MIXED_CURE)
    elif some.any() and not config.time_zone and (offset.drop_nulls() == 0).all():
        yield Finding("warning", "time", "all times are in UTC, so a day begins at 00:00 UTC",
                      "name the homes' own clock: task.time_zone=Europe/Paris",
                      key="task.time_zone")
    elif config.time_zone and none.any():
        yield Finding("warning", "time", "no time says its offset from UTC, so all are taken for "
                      f"the clock of {config.time_zone} already", "if they are UTC, write them "
                      "with Z or +00:00; if they are the homes' own clock, leave task.time_zone "
                      "empty", key="task.time_zone")


def _idle(readings: pl.DataFrame) -> Iterator[Finding]:
    homes = readings.group_by("partner", "customer").agg(pl.col("load_kwh").max())
    idle = homes.filter(pl.col("load_kwh") == 0)
    if len(idle):
        yield Finding("warning", "load_kwh", f"{len(idle):,} of {len(homes):,} homes have used "
                      "nothing at all", "leave out those that are no homes or whose meter is dead: "
                      "0 is forecast without error, and makes every mean look better")


def _spans(readings: pl.DataFrame) -> Iterator[Finding]:
    far = readings.filter(far_off(readings))
    for partner, customers in far.group_by("partner").agg(
            pl.col("customer").n_unique()).sort("partner").iter_rows():
        yield Finding("error", "time", f"the files of {partner!r} have readings of {customers:,} "
                      f"homes more than {FAR_DAYS} days from their others",
                      "correct the dates or leave a file out")
    homes = readings.group_by("partner", "customer").agg(
        ((pl.col("time").max() - pl.col("time").min()).dt.total_hours() + 1).alias("hours"),
        pl.len().alias("there"))
    short = homes.filter(pl.col("hours") < SHORT_DAYS * HOURS)
    useless = homes.filter(pl.col("hours") < (2 * WEEK + 1) * HOURS)
    if len(useless) == len(homes):
        yield Finding("error", "time", "no home has more than two weeks of readings",
                      "give at least two months")
    elif len(short):
        yield Finding("warning", "time", f"{len(short):,} homes have less than {SHORT_DAYS} days "
                      "of readings", "a day needs the week before it; longer histories teach more")
    missing = homes.filter(pl.col("there") < 0.9 * pl.col("hours"))
    if len(missing):
        share = 1 - missing["there"].sum() / missing["hours"].sum()
        yield Finding("warning", "time", f"{len(missing):,} homes miss more than a tenth of their "
                      f"hours ({share:.0%} in all)", "days with a gap are no examples; nothing is "
                      "filled in")
