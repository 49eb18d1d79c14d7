"""What the documents say about the bundled data is what it holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from learning import complete_journey
from learning.trade_areas import area_of_store

ROOT = Path(__file__).resolve().parents[3]


def test_the_documents_count_the_bundled_data() -> None:
    readme, data = ((ROOT / name).read_text().replace("\n", " ")
                    for name in ("README.md", "docs/data.md"))
    events = complete_journey.events()
    sizes = dict(events.group_by("partner").agg(pl.col("customer").n_unique()).rows())
    shared, visits = events["customer"].n_unique(), complete_journey.store_visits()
    everybody = visits["customer"].n_unique()
    homes = events.select("customer", "partner").unique()
    baskets = visits.with_columns(pl.col("customer").cast(pl.String)).join(homes, on="customer")
    at_home = baskets.filter(pl.col("store").replace_strict(area_of_store(), default=None)
                             == pl.col("partner"))["baskets"].sum() / baskets["baskets"].sum()
    assert complete_journey.partners() == tuple(sorted(sizes)) and len(sizes) == 6
    assert f"{shared:,} of them in the six trade areas" in readme
    assert f"With {shared:,} households" in readme
    assert f"{len(events) / 1e6:.2f} million purchases by {everybody:,} households" in data
    assert max(sizes, key=sizes.__getitem__) == "area_1" and min(
        sizes, key=sizes.__getitem__) == "area_6"
    assert f"the largest ({sizes['area_1']} households)" in data
    assert f"the smallest ({sizes['area_6']})" in data
    assert everybody - shared == 7 and "seven households shop in none of them" in data
    assert f"{at_home:.0%} of baskets are bought at home" in data
    assert complete_journey.LAST_DAY in data
