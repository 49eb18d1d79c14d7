"""Own readings: units, lengths, clocks and gaps come out right, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from conf.schema import Config, InvalidConfig, TaskConfig
from experiments.validate_data import main as validate
from learning.load_checks import check, check_rows
from learning.load_readings import READINGS
from learning.load_site import _sound, scan_readings
from learning.load_table import cache_key, hourly, read_load
from learning.registry import load_partner, make_task
from learning.site_table import as_written
from learning.tables import Finding, TableError
from tests.learning.load_data import readings

Rows = list[tuple[str, str]]
CONFIG = TaskConfig(name="utility_load")


def write(path: Path, rows: Rows, column: str = "load_kwh", partner: str | None = "north") -> Path:
    """rows: (time, load) of one home."""
    head = "customer,time," + column + (",partner" if partner else "")
    lines = [f"h1,{time},{load}" + (f",{partner}" if partner else "") for time, load in rows]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def every(minutes: int, count: int, value: str = "0.25",
          first: datetime = datetime(2024, 1, 1)) -> Rows:
    return [(f"{first + number * timedelta(minutes=minutes):%Y-%m-%d %H:%M}", value)
            for number in range(count)]


def hours(path: Path, **settings: str) -> pl.DataFrame:
    return hourly(read_load(path, replace(CONFIG, **settings)))


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A good table of three partners, changed by a function over its rows."""
    frame = readings(("east", "north", "west"), homes=12).drop("temperature_c")

    def make(change: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame) -> Path:
        path = tmp_path / "meters.csv"
        change(frame).write_csv(path, datetime_format="%Y-%m-%d %H:%M")
        return path

    return make


def findings(path: Path, **settings: str) -> dict[tuple[str, str], Finding]:
    found = check(replace(CONFIG, path=str(path), **settings)).findings
    return {(finding.severity, finding.column): finding for finding in found}


@pytest.mark.parametrize(("column", "minutes", "value", "kwh"), [
    ("load_kwh", 60, "0.5", 0.5), ("load_kwh", 30, "0.5", 1.0), ("load_kwh", 15, "0.5", 2.0),
    ("load_wh", 15, "250", 1.0), ("load_kw", 15, "1.5", 1.5), ("load_kw", 60, "1.5", 1.5)])
def test_units_and_lengths(tmp_path: Path, column: str, minutes: int, value: str,
                           kwh: float) -> None:
    frame = hours(write(tmp_path / "t.csv", every(minutes, 48 * 60 // minutes, value), column))
    assert len(frame) == 48 and dict(frame.schema) == dict(READINGS)
    assert frame["load_kwh"].to_list() == pytest.approx([kwh] * 48)
    assert frame["time"][0] == datetime(2024, 1, 1)


def test_an_hour_without_one_reading_is_absent(tmp_path: Path) -> None:
    rows = every(15, 8)
    del rows[2]
    rows.append(("2024-01-01 02:00", ""))
    frame = hours(write(tmp_path / "t.csv", rows))
    assert frame["time"].to_list() == [datetime(2024, 1, 1, 1)]


def test_negative_is_nothing_and_an_exact_repeat_counts_once(tmp_path: Path) -> None:
    rows = [("2024-01-01 00:00", "-1"), ("2024-01-01 00:30", "0.4"), ("2024-01-01 00:30", "0.4")]
    assert hours(write(tmp_path / "t.csv", rows))["load_kwh"].to_list() == [0.4]


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


def test_a_good_table_runs_through_the_task(table: Callable[..., Path], tmp_path: Path) -> None:
    config = replace(CONFIG, path=str(table()))
    result = check(config)
    assert not result.errors
    assert [partner[:2] for partner in result.partners] == [("east", 12), ("north", 12),
                                                            ("west", 12)]
    whole = Config(task=config)
    files = make_task(whole).split_by_partner(tmp_path / "sites")
    assert list(files) == ["east", "north", "west"]
    data = load_partner(whole, files["north"])
    assert len(data.train) + len(data.heldout) == 12


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_every_length_is_accepted_and_adds_up(table: Callable[..., Path], tmp_path: Path,
                                              minutes: int) -> None:
    whole = readings(("east", "north", "west"), homes=2, days=35).drop("temperature_c")
    parts = 60 // minutes
    path = table(lambda _: pl.concat([
        whole.with_columns(pl.col("time") + pl.duration(minutes=minutes * part),
                           pl.col("load_kwh") / parts) for part in range(parts)]))
    assert validate([str(path), "task=utility_load"]) == 0
    config = replace(CONFIG, path=str(path))
    files = make_task(Config(task=config)).split_by_partner(tmp_path / "sites")
    own = tmp_path / "north.csv"
    pl.read_csv(path).filter(pl.col("partner") == "north").write_csv(own)
    expected = whole.filter(pl.col("partner") == "north").sort("customer", "time")
    for file in (files["north"], own):
        got = scan_readings(file, CONFIG)[1].collect()
        assert got["time"].to_list() == expected["time"].to_list()
        assert got["load_kwh"].to_list() == pytest.approx(expected["load_kwh"].to_list())


def test_a_folder_holds_one_file_per_partner(table: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "utilities"
    folder.mkdir()
    frame = pl.read_csv(table())
    for (name,), part in frame.partition_by("partner", as_dict=True).items():
        part.drop("partner").write_csv(folder / f"{name}.csv")
    config = replace(CONFIG, path=str(folder))
    assert [partner[0] for partner in check(config).partners] == ["east", "north", "west"]
    (folder / "south.csv").write_text("customer,time\nh,2024-01-01 00:00\n")
    (error,) = [finding for finding in check(config).findings if finding.severity == "error"]
    assert error.text.startswith("south.csv: no column says the load")


def test_files_of_a_folder_may_not_hold_the_same_hours(table: Callable[..., Path],
                                                       tmp_path: Path) -> None:
    folder = tmp_path / "utilities"
    folder.mkdir()
    frame = pl.read_csv(table())
    early, north = pl.col("time") < "2024-02-01", pl.col("partner") == "north"

    def errors(second: pl.DataFrame) -> list[str]:
        frame.filter(early | ~north).write_csv(folder / "january.csv")
        second.write_csv(folder / "later.csv")
        config = replace(CONFIG, path=str(folder))
        return [str(finding) for finding in check(config).findings if finding.severity == "error"]

    assert errors(frame.filter(~early & north)) == []
    again = early & pl.col("customer").is_in(["north-3", "north-5"]) & (
        pl.col("time") >= "2024-01-20")
    (error,) = errors(frame.filter((~early | again) & north))
    assert "january.csv and later.csv hold the same hours of 2 homes of 'north'" in error
    assert error.endswith("keep each reading in one file alone")
    with pytest.raises(TableError, match="hold the same hours"):
        make_task(Config(task=replace(CONFIG, path=str(folder)))).split_by_partner(
            tmp_path / "sites")


def test_what_older_rules_let_pass_is_checked_again(
    table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, path=str(table()))
    key = cache_key(config)
    assert cache_key(config) == key
    monkeypatch.setattr("learning.load_table._RULES", ("load_checks.py",))
    assert cache_key(config) != key


def test_a_site_reads_its_own_table(tmp_path: Path) -> None:
    path = write(tmp_path / "north.csv", every(60, 48), partner=None)
    partner, frame = scan_readings(path, CONFIG)
    assert partner == "north" and len(frame.collect()) == 48
    both = pl.concat([pl.read_csv(write(tmp_path / f"{name}.csv", every(60, 48), partner=name))
                      for name in ("a", "b")])
    both.write_csv(tmp_path / "both.csv")
    with pytest.raises(TableError, match="own customers only"):
        scan_readings(tmp_path / "both.csv", CONFIG)


def quarters(frame: pl.DataFrame) -> pl.DataFrame:
    """The same energy in readings of 15 minutes."""
    return pl.concat([frame.with_columns(pl.col("time") + pl.duration(minutes=15 * part),
                                         pl.col("load_kwh") / 4) for part in range(4)])


def test_what_was_written_for_a_partner_is_read_as_it_is(table: Callable[..., Path],
                                                         tmp_path: Path) -> None:
    config = replace(CONFIG, path=str(table(quarters)))
    files = make_task(Config(task=config)).split_by_partner(tmp_path / "sites")
    for path in files.values():
        frame = as_written(path, READINGS, _sound())
        assert frame is not None
        assert frame.collect().equals(hourly(read_load(path, CONFIG)))


@pytest.mark.parametrize(("change", "refused"), [
    (quarters, ""),
    (lambda frame: frame.reverse(), ""),
    (lambda frame: frame.select(sorted(frame.columns)), ""),
    (lambda frame: pl.concat([frame, frame]), ""),
    (lambda frame: pl.concat([frame, frame.tail(5).with_columns(pl.col("load_kwh") + 1)]),
     "has another reading already"),
    (lambda frame: pl.concat([frame, frame.tail(5).with_columns(partner=pl.lit("south"))]),
     "holds 2 partners"),
    (lambda frame: pl.concat([frame, frame.tail(1).with_columns(
        pl.lit(datetime(9999, 1, 1)).alias("time"))]), "9999-01-01 00:00 lies more than"),
    (lambda frame: frame.with_columns(pl.when(pl.int_range(pl.len()) == 7).then(float("inf"))
                                      .otherwise(pl.col("load_kwh")).alias("load_kwh")),
     "cannot read 'inf'"),
    (lambda frame: frame.with_columns(pl.col("load_kwh") * 5000), "is above 1,000 kWh"),
    (lambda frame: frame.with_columns(pl.lit(" ").alias("customer")), "is empty"),
], ids=range(10))
def test_own_parquet_in_canonical_columns_is_checked_as_any_table(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], refused: str
) -> None:
    frame = readings(("north",), homes=3, days=20).sort("customer", "time")
    path = tmp_path / "meters.parquet"
    change(frame).write_parquet(path)
    if refused:
        with pytest.raises(TableError, match=refused):
            scan_readings(path, CONFIG)
    else:
        got = scan_readings(path, CONFIG)[1].collect()
        assert got["load_kwh"].to_list() == pytest.approx(frame["load_kwh"].to_list())


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_site_knows_whose_it_is(tmp_path: Path, form: str) -> None:
    frame = readings(("east",), homes=3, days=20).sort("customer", "time")
    path = tmp_path / f"meters.{form}"

    def store(frame: pl.DataFrame) -> None:
        frame.write_parquet(path) if form == "parquet" else frame.write_csv(path)

    store(frame.drop("partner"))
    assert scan_readings(path, CONFIG, "east")[0] == "east"
    assert scan_readings(path, CONFIG)[0] == "meters"
    store(frame)
    assert scan_readings(path, CONFIG, "east")[0] == "east"
    with pytest.raises(TableError, match="names 'east', and this is the site of 'west'"):
        scan_readings(path, CONFIG, "west")


def test_a_home_may_pause_for_a_year(tmp_path: Path) -> None:
    for days, errors in ((366, 0), (367, 1)):
        path = write(tmp_path / "t.csv", [*every(60, 48), *every(
            60, 24, first=datetime(2024, 1, 2, 23) + timedelta(days=days))])
        config = replace(CONFIG, path=str(path))
        found = [finding for finding in check_rows(read_load(path, config), config)
                 if finding.severity == "error"]
        assert len(found) == errors and all(finding.count == 24 for finding in found)


def test_far_dates_are_found_between_files_too(table: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "utilities"
    folder.mkdir()
    frame = pl.read_csv(table())
    frame.write_csv(folder / "new.csv")
    frame.filter(pl.col("customer") == "east-1").head(24).with_columns(
        pl.col("time").str.replace("2024", "2022")).write_csv(folder / "old.csv")
    (error,) = [finding for finding in check(replace(CONFIG, path=str(folder))).findings
                if finding.severity == "error"]
    assert "the files of 'east' have readings of 1 homes" in error.text


def cell(row: int, column: str, value: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Row number as in the file, whose header is line 1."""
    def change(frame: pl.DataFrame) -> pl.DataFrame:
        text = frame.with_columns(pl.all().cast(pl.String))
        return text.with_columns(pl.when(pl.int_range(pl.len()) == row - 2).then(pl.lit(value))
                                 .otherwise(pl.col(column)).alias(column))

    return change


@pytest.mark.parametrize(("change", "severity", "column", "text"), [
    (cell(7, "time", "yesterday"), "error", "time", "cannot read 'yesterday'"),
    (cell(7, "time", "2024-01-01"), "error", "time", "cannot read"),
    (cell(7, "time", "2024-01-01 05:00+99:99"), "error", "time", "cannot read"),
    (cell(7, "time", "2024-01-01 05:00+14:15"), "error", "time", "cannot read"),
    (cell(7, "time", "2024-01-01 05:00-03:60"), "error", "time", "cannot read"),
    (cell(7, "time", "1970-01-01 00:00"), "error", "time", "1970-01-01 00:00 lies more than 366"),
    (cell(7, "time", "9999-01-01 00:00"), "error", "time", "9999-01-01 00:00 lies more than 366"),
    (cell(7, "load_kwh", "much"), "error", "load_kwh", "cannot read 'much'"),
    (cell(7, "load_kwh", ""), "warning", "load_kwh", "is empty"),
    (cell(7, "customer", ""), "error", "customer", "is empty"),
    (cell(7, "load_kwh", "-0.5"), "warning", "load_kwh", "is below 0"),
    (cell(7, "load_kwh", "20000"), "error", "load_kwh", "is above 1,000 kWh"),
    (cell(7, "time", "2024-01-01 05:07"), "error", "time", "is not at a full quarter"),
    (cell(7, "time", "2024-01-01 04:00"), "error", "time", "has another reading already"),
    (cell(7, "time", "2024-01-01 05:00Z"), "error", "time", "offset from UTC"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_defects_are_named_by_row_and_column(
    table: Callable[..., Path], change: Callable[[pl.DataFrame], pl.DataFrame], severity: str,
    column: str, text: str,
) -> None:
    found = findings(table(change))
    finding = found[severity, column]
    assert text in finding.text and finding.rows == (7,) and finding.count == 1


@pytest.mark.parametrize(("change", "severity", "column", "text"), [
    (lambda frame: pl.concat([frame, frame.head(3)]), "warning", "", "repeats an earlier"),
    (lambda frame: frame.with_columns(pl.col("time").dt.offset_by("2h") - pl.col("time")
                                      .dt.minute() * pl.duration(minutes=1)).filter(
        pl.col("time").dt.hour() % 2 == 0), "error", "time", "120 minutes apart"),
    (lambda frame: frame.filter(pl.col("time") < datetime(2024, 1, 10)), "error", "time",
     "no home has more than two weeks"),
    (lambda frame: frame.filter(pl.col("time").dt.day() % 5 > 0), "warning", "time",
     "miss more than a tenth"),
    (lambda frame: frame.filter(pl.col("partner") == "east"), "error", "partner",
     "only one partner"),
    (lambda frame: frame.filter((pl.col("partner") != "east") | (pl.col("customer") == "east-1")),
     "warning", "customer", "'east' has only 1 homes"),
    (lambda frame: frame.with_columns(pl.col("load_kwh") * 1e-4), "warning", "load_kwh",
     "unusual for homes"),
    (lambda frame: frame.rename({"load_kwh": "watts"}), "error", "", "no column says the load"),
    (lambda frame: frame.with_columns(load_wh=1.0), "error", "", "load_kwh and load_wh"),
    (lambda frame: frame.drop("customer"), "error", "customer", "the column is missing"),
    (lambda frame: frame.with_columns(time=pl.col("time").dt.to_string("%Y-%m-%dT%H:%MZ")),
     "warning", "time", "all times are in UTC"),
])
def test_what_only_the_whole_shows(
    table: Callable[..., Path], change: Callable[[pl.DataFrame], pl.DataFrame], severity: str,
    column: str, text: str,
) -> None:
    assert text in findings(table(change))[severity, column].text


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


def test_a_wrong_place_or_zone_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"task\.time_zone"):
        replace(CONFIG, time_zone="Paris").validate()
    for path in (tmp_path / "none.csv", tmp_path):
        found = check(replace(CONFIG, path=str(path))).findings
        assert [finding.severity for finding in found] == ["error"]
        with pytest.raises(TableError, match=r"task\.path"):
            make_task(Config(task=replace(CONFIG, path=str(path)))).split_by_partner(
                tmp_path / "sites")
