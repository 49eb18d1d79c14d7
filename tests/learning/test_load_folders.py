"""A folder of readings: no file is left out unsaid, and no home becomes several partners'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from learning.load_checks import check, checked_readings
from learning.load_folders import files_of
from learning.tables import Finding, TableError
from tests.learning.load_data import CONFIG, readings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "utilities"
    place.mkdir()
    return place


def errors(folder: Path) -> list[Finding]:
    found = check(replace(CONFIG, path=str(folder))).findings
    return [finding for finding in found if finding.severity == "error"]


def test_a_month_a_file_makes_no_partner_of_each_month(folder: Path) -> None:
    frame = readings(("north", "south"), homes=3)
    months = {f"2024-{month:02}.csv": frame.filter(pl.col("time").dt.month() == month)
              for month in (1, 2, 3)}
    for name, part in months.items():
        part.drop("partner").write_csv(folder / name)
    (error,) = errors(folder)
    assert error.column == "partner" and "6 names of homes stand in several" in error.text
    assert "2024-01.csv, 2024-02.csv, 2024-03.csv" in error.text
    assert "add a partner column" in error.cure
    with pytest.raises(TableError, match="each file is a partner"):
        checked_readings(replace(CONFIG, path=str(folder)))
    for name, part in months.items():
        part.write_csv(folder / name)
    assert errors(folder) == []
    key = ["partner", "customer", "time"]
    assert checked_readings(replace(CONFIG, path=str(folder))).sort(key)[key].equals(
        frame.sort(key)[key])


def test_homes_named_alike_are_told_apart_by_an_hour(folder: Path) -> None:
    """Utilities number their meters alike; a copy, or another month, is no other home."""
    frame = readings(("north",), homes=3)
    frame.write_csv(folder / "north.csv")
    bare = frame.drop("partner")
    bare.write_csv(folder / "south.csv")
    assert [error.column for error in errors(folder)] == ["partner"]
    one = frame["customer"][0]
    others = pl.col("load_kwh") * pl.when(pl.col("customer") == one).then(1).otherwise(2)
    bare.with_columns(others).write_csv(folder / "south.csv")
    (error,) = errors(folder)
    assert error.text.startswith("1 names of homes")
    bare.with_columns(pl.col("load_kwh") * 2).write_csv(folder / "south.csv")
    found = check(replace(CONFIG, path=str(folder))).findings
    assert not [finding for finding in found if finding.severity == "error"]
    assert any("several partners" in finding.text for finding in found)


def test_partners_that_are_named_may_name_homes_alike_with_a_warning(folder: Path) -> None:
    for name in ("north", "south"):
        readings(("x",), homes=3).with_columns(partner=pl.lit(name)).write_csv(
            folder / f"{name}.csv")
    found = check(replace(CONFIG, path=str(folder))).findings
    assert [finding.severity for finding in found if "several partners" in finding.text] == [
        "warning"]
    assert errors(folder) == []


@pytest.mark.parametrize("name", ["west", "west.csv.bak", "west.dat", "west.txt", "west.json",
                                  "west.tsv", "west.csv.gz"])
def test_every_other_file_is_named(folder: Path, name: str) -> None:
    for file in ("north.csv", "SOUTH.PARQUET", ".hidden", "README.md", name):
        (folder / file).write_text("x")
    with pytest.raises(TableError, match=r"neither \.csv nor \.parquet") as caught:
        files_of(folder)
    (finding,) = caught.value.findings
    assert f"holds {name}," in finding.text
    (folder / name).unlink()
    assert [file.name for file in files_of(folder)] == ["SOUTH.PARQUET", "north.csv"]


@pytest.mark.parametrize("files", [(), ("north.csv",)])
def test_folders_in_a_folder_are_named(folder: Path, files: tuple[str, ...]) -> None:
    for name in ("a.csv", "b", "c", "d", ".git"):
        (folder / name).mkdir()
    for name in files:
        (folder / name).write_text("x")
    with pytest.raises(TableError, match=r"folders \(a.csv, b, c and 1 more\), which are not read"):
        files_of(folder)
