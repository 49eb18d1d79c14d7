"""Own readings whose length changes: both parts count, and a gap is not taken for a change."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from learning.load_checks import check
from tests.learning.load_data import CONFIG, Rows, every, hours, write

DAY = datetime(2024, 1, 1)


def changed(first: int, second: int, days: int, later: int = 0) -> Rows:
    """Readings of ``first`` minutes for ``days``, then of ``second`` for 20; every hour 1 kWh."""
    until = days * 24 * 60 + later
    start = every(first, until // first, str(first / 60))
    return start + every(second, 20 * 24 * 60 // second, str(second / 60),
                         DAY + timedelta(minutes=until))


def said(path: Path) -> str:
    """All findings that the times of the table cause."""
    found = check(replace(CONFIG, path=str(path))).findings
    return "\n".join(f"{one.severity}: {one}" for one in found if one.column == "time")


@pytest.mark.parametrize("later", [0, 12 * 60])
@pytest.mark.parametrize(("first", "second"), [(60, 15), (60, 30), (30, 15), (15, 60), (15, 30)])
def test_both_lengths_count(tmp_path: Path, first: int, second: int, later: int) -> None:
    path = write(tmp_path / "t.csv", changed(first, second, 10, later))
    frame = hours(path)
    expected = [DAY + timedelta(hours=number) for number in range(30 * 24 + later // 60)]
    lost = set(expected) - set(frame["time"])
    assert all(time.date() == (DAY + timedelta(days=10)).date() for time in lost)
    assert len(lost) <= 12 * bool(later)
    assert frame["load_kwh"].to_list() == pytest.approx([1.0] * len(frame))
    assert "error" not in said(path)
    assert f"({max(first, second)} and {min(first, second)} minutes)" in said(path)


def test_a_home_with_another_length_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    rows = changed(60, 15, 30)
    write(tmp_path / "a.csv", rows)
    write(tmp_path / "b.csv", every(30, 48 * 40, "0.5"))
    both = pl.concat([pl.read_csv(tmp_path / f"{name}.csv", infer_schema=False).with_columns(
        pl.lit(name).alias("customer")) for name in ("a", "b")])
    both.sample(fraction=1, shuffle=True, seed=0).write_csv(tmp_path / "both.csv")
    frame = hours(tmp_path / "both.csv")
    assert frame.filter(pl.col("customer") == "a")["time"].len() == 50 * 24
    assert frame.filter(pl.col("customer") == "b")["time"].len() == 40 * 24
    assert frame["load_kwh"].to_list() == pytest.approx([1.0] * len(frame))


def test_gaps_are_no_change_and_do_not_stay_unsaid(tmp_path: Path) -> None:
    rows = every(15, 40 * 96)
    sparse = [row for place, row in enumerate(rows) if place >= 6 * 96 or place % 4 == 0]
    path = write(tmp_path / "t.csv", sparse)
    frame = hours(path)
    assert frame["time"][0] == DAY + timedelta(days=6) and frame["load_kwh"].max() == 1.0
    assert "hours that are not complete (15% of their hours)" in said(path)
    few = [row for place, row in enumerate(rows) if place >= 20 * 96 or place % 12 == 0]
    assert hours(write(path, few))["time"][0] == DAY + timedelta(days=20)


def test_a_change_too_short_to_see_is_refused_with_its_cure(tmp_path: Path) -> None:
    rows = every(60, 40 * 24) + every(15, 3 * 96, first=DAY + timedelta(days=40))
    assert "error" in said(write(tmp_path / "t.csv", rows))
    assert "change their length need 7 days of either" in said(tmp_path / "t.csv")
