"""A small made-up table: three partners, habits that differ by customer."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import TaskConfig
from learning.partner_file import cache_folder

CATEGORIES = ["BREAD", "MILK", "TEA, GREEN"]


def purchases(customers: int = 20, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for partner in ("north", "south", "west"):
        for number in range(customers):
            rate = random.uniform(0.02, 0.2)
            for day in np.flatnonzero(random.random(300) < rate):
                minute = int(random.integers(1440))
                time = datetime(2024, 1, 1) + timedelta(days=int(day), minutes=minute)
                rows.append((partner, f"c{number}", f"{time:%Y-%m-%d %H:%M}",
                             str(random.choice([*CATEGORIES, "OTHER"])),
                             int(random.integers(1, 4)), round(float(random.random() * 9), 2)))
    columns = ["partner", "customer", "time", "category", "quantity", "value"]
    return pl.DataFrame(rows, schema=columns, orient="row").unique(
        ["partner", "customer", "time", "category"], maintain_order=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    purchases().write_csv(path)
    return path


@pytest.fixture
def task(table: Path) -> TaskConfig:
    return TaskConfig(path=str(table), categories=CATEGORIES)


@pytest.fixture(scope="session")
def _before() -> str | None:
    """$VEILSUM_CACHE as the person set it."""
    return os.environ.get("VEILSUM_CACHE")


@pytest.fixture
def real_cache(_before: str | None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's own cache, so that real wheels are downloaded once, not for every test run."""
    if _before is None:
        monkeypatch.delenv("VEILSUM_CACHE")
    else:
        monkeypatch.setenv("VEILSUM_CACHE", _before)
    return cache_folder()
