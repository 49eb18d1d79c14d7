"""Makes trade_areas.csv anew: ``python -m learning.store_clusters``.

Louvain clustering (networkx) of the stores of the bundled data; an edge weighs the baskets that
households have in both stores (the smaller of the two counts). Areas with fewer than
MINIMUM_HOUSEHOLDS are left out; the rest are named by size.
"""

from __future__ import annotations

import csv

import polars as pl

from learning.complete_journey import store_visits
from learning.trade_areas import AREAS_FILE, home_areas

MINIMUM_HOUSEHOLDS = 50
_SEED = 1


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
    area = _cluster(store_visits())
    with AREAS_FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["store", "area"])
        writer.writerows(area.items())


if __name__ == "__main__":
    main()
