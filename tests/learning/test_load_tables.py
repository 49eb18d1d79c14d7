"""Own readings: units, lengths, clocks and gaps come out right, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from conf.schema import Config, InvalidConfig
from experiments.validate_data import main as validate
from learning.load_checks import check, check_rows
from learning.load_readings import READINGS
from learning.load_site import _sound, scan_readings
from learning.load_table import cache_key, hourly, read_load
from learning.registry import load_partner, make_task
from learning.site_table import as_written
from learning.tables import TableError
from tests.learning.load_data import CONFIG, every, findings, hours, quarters, readings, write


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """A good table of three partners, changed by a function over its rows."""
    frame = readings(("east", "north", "west"), homes=12).drop("temperature_c")

    def make(change: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame) -> Path:
        path = tmp_path / "meters.csv"
        change(frame).write_csv(path, datetime_format="%Y-%m-%d %H:%M")
        return path

    return make


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


def test_no_file_of_a_folder_is_left_out_unsaid(table: Callable[..., Path],
                                                tmp_path: Path) -> None:
    folder = tmp_path / "utilities"
    folder.mkdir()
    frame = pl.read_csv(table())
    for (name,), part in frame.partition_by("partner", as_dict=True).items():
        part.write_csv(folder / (f"{name}.csv" if name != "north" else "NORTH.CSV"))
    for ignored in (".hidden.gz", "README.md"):
        (folder / ignored).write_text("x")
    config = replace(CONFIG, path=str(folder))
    assert [partner[0] for partner in check(config).partners] == ["east", "north", "west"]
    (folder / "north.csv.gz").write_bytes(b"x")
    (folder / "South.XLSX").write_bytes(b"x")
    (error,) = check(config).findings
    assert "holds South.XLSX, north.csv.gz, neither .csv nor .parquet" in error.text


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


def test_what_was_written_for_a_partner_is_read_as_it_is(table: Callable[..., Path],
                                                         tmp_path: Path) -> None:
    config = replace(CONFIG, path=str(table(quarters)))
    files = make_task(Config(task=config)).split_by_partner(tmp_path / "sites")
    for path in files.values():
        frame = as_written(path, READINGS, _sound())
        assert frame is not None
        assert frame.collect().equals(hourly(read_load(path, CONFIG)))


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


def test_a_load_is_judged_by_what_an_hour_of_it_is(tmp_path: Path) -> None:
    for minutes, column, load, refused in (
            (15, "load_kwh", "251", True), (15, "load_kwh", "249", False),
            (30, "load_wh", "501000", True), (15, "load_kw", "999", False),
            (15, "load_kw", "1001", True)):
        path = write(tmp_path / "t.csv", every(minutes, 1000, load), column)
        assert (("error", column) in findings(path)) == refused
    for load, unusual in (("30", True), ("20", False), ("0.002", False), ("0.001", True)):
        path = write(tmp_path / "t.csv", every(15, 2000, load))
        assert (("warning", "load_kwh") in findings(path)) == unusual


def test_a_wrong_place_or_zone_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"task\.time_zone"):
        replace(CONFIG, time_zone="Paris").validate()
    for path in (tmp_path / "none.csv", tmp_path):
        found = check(replace(CONFIG, path=str(path))).findings
        assert [finding.severity for finding in found] == ["error"]
        with pytest.raises(TableError, match=r"task\.path"):
            make_task(Config(task=replace(CONFIG, path=str(path)))).split_by_partner(
                tmp_path / "sites")
