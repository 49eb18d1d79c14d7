"""Which trade area a store of the bundled data belongs to: a small public table, made by
``python -m learning.store_clusters``."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import polars as pl

AREAS_FILE = Path(__file__).with_name("trade_areas.csv")


@lru_cache(maxsize=1)
def area_of_store() -> dict[int, str]:
    """Store -> "area_1" (largest) and so on; stores of tiny areas are absent."""
    with AREAS_FILE.open(newline="") as file:
        return {int(row["store"]): row["area"] for row in csv.DictReader(file)}


def home_areas(visits: pl.DataFrame, area: dict[int, str]) -> pl.DataFrame:
    """customer, partner: where a customer has most baskets (ties: the first name). ``visits``:
    customer, store, baskets. Customers of unmapped stores alone are absent."""
    return (
        visits.with_columns(
            pl.col("store").replace_strict(area, default=None, return_dtype=pl.String)
            .alias("partner"))
        .drop_nulls("partner")
        .group_by("customer", "partner").agg(pl.col("baskets").sum())
        .sort("customer", "baskets", "partner", descending=[False, True, False])
        .group_by("customer", maintain_order=True).first()
        .select("customer", "partner")
    )
