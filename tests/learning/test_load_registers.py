"""A meter's register is no load: it is refused with that cause, at a site as in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from learning.load_registers import registers
from learning.load_site import scan_readings
from learning.tables import TableError
from tests.learning.load_data import CONFIG, findings, quarters, readings

HOME = ["partner", "customer"]
_count = pl.col("load_kwh").cum_sum().over(HOME)


@pytest.mark.parametrize("register", [
    lambda frame: frame.with_columns(load_kwh=_count),
    lambda frame: frame.with_columns(load_kwh=_count - pl.col("load_kwh")),  # begins at 0
    lambda frame: frame.with_columns(load_kwh=_count + 12_345.6),
    lambda frame: quarters(frame).sort("time").with_columns(load_kwh=_count),
    lambda frame: frame.with_columns(load_kwh=_count.floor()),
    # Changed in the middle; and one home's alone.
    lambda frame: frame.with_columns(load_kwh=pl.when(
        pl.col("time").dt.month() < 2).then(_count).otherwise(_count - 500)),
    lambda frame: frame.with_columns(load_kwh=pl.when(
        pl.col("customer") == "north-1").then(_count).otherwise("load_kwh")),
], ids=range(7))
def test_a_register_is_refused_for_what_it_is(
    tmp_path: Path, register: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    frame = register(readings(("north", "south"), homes=2)).sort(*HOME, "time")
    path = tmp_path / "meters.csv"
    frame.sample(fraction=1, shuffle=True, seed=0).write_csv(path)
    found = findings(path)
    finding = found["error", "load_kwh"]
    assert "a meter's register" in finding.text and "give differences" in finding.cure
    assert all("unit" not in finding.cure for finding in found.values())
    own = tmp_path / "north.parquet"
    frame.filter(pl.col("partner") == "north").write_parquet(own)
    with pytest.raises(TableError, match="a meter's register"):
        scan_readings(own, CONFIG)


@pytest.mark.parametrize("load", [
    pl.lit(0.0), pl.lit(0.25),
    (pl.int_range(pl.len()) >= 1000).over(HOME).cast(pl.Float64),
    # A meter that is stuck, and now and then a step higher.
    (pl.int_range(pl.len()) // 336).over(HOME).cast(pl.Float64),
    pl.when(pl.col("time").dt.hour() == 3).then(0.0).otherwise("load_kwh"),
    # Rising for six days.
    pl.when(pl.col("time").dt.day() < 7).then(_count).otherwise("load_kwh"),
], ids=range(6))
def test_loads_are_no_register(load: pl.Expr) -> None:
    frame = readings(("north", "south"), homes=3).with_columns(load=load)
    assert not list(registers(frame, "load_kwh", pl.col("time")))


def test_a_home_does_not_go_on_where_another_ended() -> None:
    """Six days of one home and six of the next, each above those before."""
    frame = readings(("north",), homes=2, days=6).sort(*HOME, "time").with_columns(
        load=pl.int_range(pl.len()).cast(pl.Float64))
    assert not list(registers(frame, "load_kwh", pl.col("time")))
