"""A table is the one file that was named, and it is what its name says, or it is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import polars as pl
import pytest

from conf.schema import TaskConfig
from experiments.partition import split_further
from learning.partner_file import COLUMNS, partner_of
from learning.site_table import scan_partner
from learning.tables import TableError, cache_key, canonical, read_raw, read_table


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("folder", ["shops", "shops[1]"])
def test_brackets_in_a_name_are_no_pattern(tmp_path: Path, table: Path, folder: str,
                                           suffix: str) -> None:
    rows = canonical(read_table(table)).filter(pl.col("partner") == "west")
    places = [tmp_path / folder / f"x[1].{suffix}", tmp_path / folder / f"x1.{suffix}",
              tmp_path / folder.replace("[1]", "1") / f"x1.{suffix}"]
    for place, part in zip(places, (rows, *[rows.with_columns(partner=pl.lit("other"))] * 2),
                           strict=True):
        place.parent.mkdir(exist_ok=True)
        part.write_csv(place) if suffix == "csv" else part.write_parquet(place)
    own = places[0]
    assert set(read_raw(own)["partner"]) == {"west"}
    assert scan_partner(own)[0] == "west"
    if suffix == "parquet":
        assert dict(pl.scan_parquet(own, glob=False).collect_schema()) == dict(COLUMNS)
        assert partner_of(own) == "west"
        files = split_further({"west": own}, 2, tmp_path)
        assert sum(len(pl.read_parquet(path)) for path in files.values()) == len(rows)


@pytest.mark.parametrize(("content", "said"), [
    (gzip.compress(b"partner,customer\n", mtime=0), "it is packed; unpack it first"),
    (bz2.compress(b"partner,customer\n"), "it is packed; unpack it first"),
    (lzma.compress(b"partner,customer\n"), "it is packed; unpack it first"),
    (b"\x28\xb5\x2f\xfd\0\0", "it is packed; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c\0\x04", "it is packed; unpack it first"),
    (b"PK\x03\x04\x14\0\x06\0", "a spreadsheet; unpack it first, or, of a spreadsheet, save"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet; unpack it first"),
])
@pytest.mark.parametrize("name", ["shop.csv", "shop.csv.gz", "shop.parquet"])
def test_what_is_packed_is_told_so_whatever_its_name(tmp_path: Path, content: bytes, said: str,
                                                     name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TableError, match=said):
        read_raw(path)


@pytest.mark.parametrize(("names", "twice"), [
    ("partner,customer,time,value,value", ["value"]),
    ('\ufeffpartner;customer;"time"; Time;Partner', ["partner", "time"]),
    ("partner,customer,time,,", []),
    ('"a,b",a,b,c', []),
])
def test_a_name_that_two_columns_have_is_refused(tmp_path: Path, names: str,
                                                 twice: list[str]) -> None:
    path = tmp_path / "shop.csv"
    mark = ";" if ";" in names else ","
    cells = 4 if names.startswith("\"a,b\"") else 5
    path.write_text(f"{names}\n{mark.join('12345'[:cells])}\n", encoding="utf-8")
    if not twice:
        assert len(read_raw(path)) == 1
        return
    with pytest.raises(TableError) as caught:
        read_raw(path)
    assert [finding.column for finding in caught.value.findings] == twice
    assert "several columns have this name" in str(caught.value)


def test_what_older_rules_read_otherwise_is_read_again(
    task: TaskConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cache_key(task)
    assert cache_key(task) == key
    monkeypatch.setattr("learning.tables._RULES", ("tables.py",))
    assert cache_key(task) != key
