"""A table is the one file that was named, and it is what its name says, or it is refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from experiments.partition import split_further
from learning.partner_file import COLUMNS, partner_of
from learning.site_table import scan_partner
from learning.tables import canonical, read_raw, read_table


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
