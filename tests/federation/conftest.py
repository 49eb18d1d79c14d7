"""A small federation on made-up purchases: three partners, real apps, real encryption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.compose import from_json
from conf.schema import Config

PARTNERS = ("east", "north", "west")
CATEGORIES = ("bread", "coffee", "milk")


def purchases(customers: int = 40, seed: int = 0) -> pl.DataFrame:
    """Regular buyers: each customer has its own pace for each category."""
    rng = np.random.default_rng(seed)
    rows = []
    for partner in PARTNERS:
        for number in range(customers):
            for category in CATEGORIES:
                gap = rng.uniform(4, 60)
                day = rng.uniform(0, gap)
                while day < 330:
                    rows.append((partner, f"{partner}-{number}", day, category))
                    day += gap * rng.uniform(0.6, 1.4)
    frame = pl.DataFrame(rows, schema=["partner", "customer", "day", "category"], orient="row")
    time = pl.datetime(2017, 1, 1) + pl.duration(minutes=(pl.col("day") * 1440).cast(pl.Int64))
    return frame.select("partner", "customer", time.alias("time"), "category")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "purchases.csv"
    purchases().write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S")
    return path


@pytest.fixture
def configure(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> (
        Callable[..., Config]):
    """configure(privacy={...}, strategy={...}) -> a checked configuration on the small table."""
    monkeypatch.chdir(tmp_path)

    def make(**groups: dict[str, object]) -> Config:
        import json

        tree: dict[str, dict[str, object]] = {
            "task": {"path": str(table), "categories": list(CATEGORIES)},
            "strategy": {"rounds": 3, "timeout_s": 30.0},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
        for group, values in groups.items():
            tree[group] = {**tree.get(group, {}), **values}
        return from_json(json.dumps(tree))

    return make
