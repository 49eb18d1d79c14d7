"""Which trade area a store of the bundled data belongs to: a small public table.

``python -m learning.trade_areas`` makes trade_areas.csv anew: Louvain clustering (networkx) of
the stores; an edge weighs the baskets that households have in both stores (the smaller of the
two counts). Areas with fewer than MINIMUM_HOUSEHOLDS are left out; the rest are named by size.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import polars as pl

AREAS_FILE = Path(__file__).with_name("trade_areas.csv")
MINIMUM_HOUSEHOLDS = 50
_SEED = 1


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


def _cluster(visits: pl.DataFrame) -> dict[int, str]:
    import networkx as nx

    shared = (
        visits.join(visits, on="customer")
        .filter(pl.col("store") < pl.col("store_right"))
        .group_by("store", "store_right")
        .agg(pl.min_horizontal("baskets", "baskets_right").sum().alias("weight"))
        .sort("store", "store_right")
    )
    graph = nx.Graph()
    graph.add_nodes_from(sorted(visits["store"].unique()))
    graph.add_weighted_edges_from(shared.iter_rows())
    groups = nx.community.louvain_communities(graph, weight="weight", seed=_SEED)
    area = {store: str(index) for index, group in enumerate(groups) for store in group}
    sizes = dict(home_areas(visits, area)["partner"].value_counts().iter_rows())
    kept = sorted((name for name, size in sizes.items() if size >= MINIMUM_HOUSEHOLDS),
                  key=lambda name: -sizes[name])
    names = {name: f"area_{rank}" for rank, name in enumerate(kept, start=1)}
    return {store: names[name] for store, name in sorted(area.items()) if name in names}


def main() -> None:
    from learning.complete_journey import store_visits

    area = _cluster(store_visits())
    with AREAS_FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["store", "area"])
        writer.writerows(area.items())


if __name__ == "__main__":
    main()
