"""Own readings on the homes' own clock: set back, set forward, beside UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from learning.tables import Finding
from tests.learning.load_data import every, findings, hours, write


def berlin(day: datetime, minutes: int) -> list[datetime]:
    """Moments of three days around ``day``, an equal time apart."""
    first = day.replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(timezone.utc)  # noqa: UP017
    return [(first + number * timedelta(minutes=minutes)).astimezone(ZoneInfo("Europe/Berlin"))
            for number in range(3 * 24 * 60 // minutes)]


@pytest.mark.parametrize("style", ["offset", "utc", "naive"])
@pytest.mark.parametrize("minutes", [15, 60])
def test_a_clock_set_back_gives_the_mean_of_both_hours(tmp_path: Path, style: str,
                                                       minutes: int) -> None:
    moments = berlin(datetime(2024, 10, 26), minutes)
    texts = {"offset": [f"{moment.isoformat()}" for moment in moments],
             "utc": [f"{moment.astimezone(ZoneInfo('UTC')):%Y-%m-%dT%H:%M:%SZ}"
                     for moment in moments],
             "naive": [f"{moment:%Y-%m-%d %H:%M}" for moment in moments]}[style]
    values = [str(1 + moment.hour + 10 * moment.fold) for moment in moments]
    path = write(tmp_path / "t.csv", list(zip(texts, values, strict=True)), "load_kw")
    frame = hours(path, time_zone="Europe/Berlin" if style == "utc" else "")
    by_time = dict(zip(frame["time"], frame["load_kwh"], strict=True))
    assert by_time[datetime(2024, 10, 27, 2)] == pytest.approx(3 + 5)
    assert by_time[datetime(2024, 10, 27, 1)] == pytest.approx(2)
    assert by_time[datetime(2024, 10, 27, 3)] == pytest.approx(4)
    assert len(frame) == 3 * 24 - 1


def test_a_quarter_may_be_the_same_in_both_passes_of_a_doubled_hour(tmp_path: Path) -> None:
    moments = berlin(datetime(2024, 10, 26), 15)
    rows = [(f"{moment:%Y-%m-%d %H:%M}", str(1 + 10 * moment.fold * (moment.minute > 0)))
            for moment in moments]
    frame = hours(write(tmp_path / "t.csv", rows))
    by_time = dict(zip(frame["time"], frame["load_kwh"], strict=True))
    assert by_time[datetime(2024, 10, 27, 2)] == pytest.approx((4 + 34) / 2)
    found = findings(tmp_path / "t.csv")
    assert "comes twice" in found["warning", "time"].text and ("warning", "") not in found
    again = hours(write(tmp_path / "t.csv", [*rows, *rows[:9], *rows[100:]]))
    assert again["load_kwh"].to_list() == frame["load_kwh"].to_list()


@pytest.mark.parametrize("style", ["offset", "naive"])
def test_a_clock_set_forward_leaves_an_hour_absent(tmp_path: Path, style: str) -> None:
    moments = berlin(datetime(2024, 3, 30), 60)
    rows = [(moment.isoformat() if style == "offset" else f"{moment:%Y-%m-%d %H:%M}", "1")
            for moment in moments]
    frame = hours(write(tmp_path / "t.csv", rows))
    assert datetime(2024, 3, 31, 2) not in frame["time"].to_list()
    assert len(frame) == len(frame["time"].unique()) == 3 * 24


def test_parquet_with_a_zone_keeps_its_clock(tmp_path: Path) -> None:
    moments = pl.Series(berlin(datetime(2024, 10, 26), 60)).dt.convert_time_zone("Europe/Berlin")
    path = tmp_path / "north.parquet"
    pl.DataFrame({"customer": "h", "time": moments, "load_kwh": 1.0}).write_parquet(path)
    frame = hours(path)
    assert frame["time"][0] == datetime(2024, 10, 26) and frame["partner"][0] == "north"
    assert len(frame) == 71


def test_a_repeated_sunday_hour_is_a_warning_elsewhere_an_error(tmp_path: Path) -> None:
    def again(day: str) -> str:
        rows = [(f"{day} {hour:02}:00", str(hour)) for hour in (0, 1, 2, 3)]
        path = write(tmp_path / "t.csv", [*rows, (f"{day} 02:00", "9")])
        return findings(path).get(("error", "time"), Finding("", "", "", "")).text

    assert "another reading" not in again("2024-10-27")
    assert "another reading" in again("2024-10-28")


@pytest.mark.parametrize(("zone", "day", "hour"), [
    ("America/Santiago", datetime(2024, 4, 6), 23), ("Africa/Cairo", datetime(2024, 10, 31), 23)])
def test_a_clock_set_back_elsewhere_needs_offsets_and_is_told_so(
    tmp_path: Path, zone: str, day: datetime, hour: int
) -> None:
    first = day.replace(tzinfo=ZoneInfo("UTC"))
    moments = [(first + timedelta(hours=number)).astimezone(ZoneInfo(zone)) for number in range(72)]

    def shown(form: Callable[[datetime], str]) -> Path:
        return write(tmp_path / "t.csv", [(form(moment), f"{1 + moment.fold}")
                                          for moment in moments])

    finding = findings(shown(lambda moment: f"{moment:%Y-%m-%d %H:%M}"))["error", "time"]
    assert "another reading" in finding.text and "with their offset from UTC" in finding.cure
    frame = hours(shown(datetime.isoformat))
    assert frame.filter(pl.col("load_kwh") == 1.5)["time"].to_list() == [day.replace(hour=hour)]


@pytest.mark.parametrize(("minutes", "zone", "wanted"), [
    (60, "Asia/Kolkata", "Etc/GMT-5"), (60, "America/St_Johns", "Etc/GMT+4"),
    (30, "Asia/Kathmandu", "Etc/GMT-5")])
def test_a_clock_half_an_hour_off_is_named_and_cured(tmp_path: Path, minutes: int, zone: str,
                                                     wanted: str) -> None:
    rows = [(f"{time}Z", load) for time, load in every(minutes, 40 * 24 * 60 // minutes)]
    path = write(tmp_path / "t.csv", rows)
    finding = findings(path, time_zone=zone)["error", "time"]
    assert "not by the homes' clock" in finding.text
    assert finding.cure.endswith(f"task.time_zone={wanted}")
    assert ("error", "time") not in findings(path, time_zone=wanted)
    quarters = write(tmp_path / "t.csv", [(f"{time}Z", load) for time, load in every(15, 4000)])
    assert ("error", "time") not in findings(quarters, time_zone=zone)


def test_a_zone_that_nothing_is_put_on_is_named(tmp_path: Path) -> None:
    for ending, warned in (("", True), ("+00:00", False)):
        path = write(tmp_path / "t.csv", [(time + ending, load) for time, load in every(60, 1500)])
        warning = findings(path, time_zone="Europe/Paris").get(("warning", "time"))
        assert (warning is not None) == warned
        if warning:
            assert "for the clock of Europe/Paris already" in warning.text
            assert "with Z or +00:00" in warning.cure and "empty" in warning.cure
            assert ("warning", "time") not in findings(path)
