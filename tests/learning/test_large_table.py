"""A table read in pieces is what it is when it is read at once, and errors name the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from learning import large_table, pieces
from learning.load_site import scan_readings
from learning.site_table import scan_partner
from learning.tables import TableError
from tests.learning.conftest import purchases
from tests.learning.load_data import CONFIG, readings

Scan = Callable[[Path, str], tuple[str, pieces.Pieces]]
KINDS: dict[str, tuple[pl.DataFrame, Scan]] = {
    "purchases": (purchases(60).with_columns(partner=pl.lit("north")), scan_partner),
    "readings": (readings(("north",), homes=12, days=30),
                 lambda path, site: scan_readings(path, CONFIG, site)),
}


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def small() -> None:
        for name in ("LARGE_BYTES", "LARGE_ROWS"):
            monkeypatch.setattr(large_table, name, 10)
        monkeypatch.setattr(large_table, "PIECE_ROWS", 50)
        monkeypatch.setattr(large_table, "grouped", lambda batches, owner: pieces.grouped(
            batches, 50, owner))

    return small


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_hold_the_rows_of_the_whole(
    kind: str, form: str, tmp_path: Path, in_pieces: Callable[[], None]
) -> None:
    frame, scan = KINDS[kind]
    path = tmp_path / f"t.{form}"
    mixed = frame.drop("partner").sample(fraction=1, shuffle=True, seed=0)
    mixed.write_csv(path) if form == "csv" else mixed.write_parquet(path)
    whole = scan(path, "north")[1].collect()
    in_pieces()
    partner, found = scan(path, "north")
    frames = list(found)
    assert partner == "north" and len(frames) > 5
    owners = [set(piece["customer"]) for piece in frames]
    assert sum(map(len, owners)) == len(set.union(*owners)), "a customer lies in one piece"
    keys = whole.columns
    assert pl.concat(frames).sort(keys).equals(whole.sort(keys))
    assert pl.concat(list(found)).equals(pl.concat(frames)), "again the same"


@pytest.mark.parametrize(("kind", "change"), [
    ("purchases", lambda frame: frame.with_columns(
        quantity=pl.when(pl.int_range(pl.len()).is_in([7, 500])).then(pl.lit("two"))
        .otherwise(pl.col("quantity").cast(pl.String)))),
    ("purchases", lambda frame: pl.concat([frame, frame[100:103]])),
    ("purchases", lambda frame: frame.with_columns(
        time=pl.when(pl.int_range(pl.len()) == 9).then(pl.lit("2001-01-01"))
        .otherwise(pl.col("time")))),
    ("purchases", lambda frame: frame.with_columns(partner=pl.lit("south"))),
    ("readings", lambda frame: frame.with_columns(
        load_kwh=pl.when(pl.int_range(pl.len()).is_in([3, 4000])).then(5e6)
        .otherwise(pl.col("load_kwh")))),
    ("readings", lambda frame: pl.concat([frame.with_columns(
        time=pl.col("time").dt.to_string("%Y-%m-%dT%H:%M") + pl.when(
            pl.col("customer") == frame["customer"][0]).then(pl.lit("Z")).otherwise(pl.lit("")))])),
])
def test_errors_name_the_rows_of_the_file(
    kind: str, change: Callable[[pl.DataFrame], pl.DataFrame], tmp_path: Path,
    in_pieces: Callable[[], None]
) -> None:
    frame, scan = KINDS[kind]
    path = tmp_path / "t.csv"
    change(frame).write_csv(path)
    with pytest.raises(TableError) as whole:
        scan(path, "north")
    in_pieces()
    with pytest.raises(TableError) as found:
        scan(path, "north")
    for one, other in zip(*(sorted(error.value.findings, key=lambda finding: finding.cure)
                            for error in (whole, found)), strict=True):
        assert (one.column, one.cure) == (other.column, other.cure)
        if "homes" not in other.text:  # told without rows
            assert replace(one, text="") == replace(other, text="")
