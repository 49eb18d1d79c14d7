"""The one file of readings at a site: whose it is, and that nothing in it is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from experiments.validate_data import main
from learning.load_site import scan_readings
from learning.tables import TableError
from tests.learning.load_data import CONFIG, every, quarters, readings, write


def test_a_site_reads_its_own_table(tmp_path: Path) -> None:
    path = write(tmp_path / "north.csv", every(60, 48), partner=None)
    partner, frame = scan_readings(path, CONFIG)
    assert partner == "north" and len(frame.collect()) == 48
    both = pl.concat([pl.read_csv(write(tmp_path / f"{name}.csv", every(60, 48), partner=name))
                      for name in ("a", "b")])
    both.write_csv(tmp_path / "both.csv")
    with pytest.raises(TableError, match="own customers only"):
        scan_readings(tmp_path / "both.csv", CONFIG)


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
    with pytest.raises(TableError, match=r"names 'east', and this is the site of 'west'[^`]*"
                                         r"`veilsum validate-data .* --site west`"):
        scan_readings(path, CONFIG, "west")


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--site", "east"], 0, "Usable at the site of east"),
    (["--site", "west"], 2, "this is the site of 'west'"),
    ([], 2, "add --site PARTNER")])
def test_the_file_of_one_site_can_be_validated(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    path = tmp_path / "meters.csv"
    readings(("east",), homes=3, days=80).write_csv(path)
    assert main([str(path), *words, "task=utility_load"]) == code
    assert said in capsys.readouterr().out


def test_a_site_has_no_folder_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--site", "east", "task=utility_load"])
    assert "is a folder" in capsys.readouterr().err
