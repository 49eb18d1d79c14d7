"""Files of one partner with many customers, as a site would hold them: made a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from learning.load_features import HOURS
from learning.load_readings import READINGS
from learning.partner_file import COLUMNS

PARTNER = "north"
LAST_DAY = np.datetime64("2024-12-31")
DAYS = 364
_AT_ONCE = 100


def homes(count: int, days: int = DAYS, seed: int = 0) -> Iterator[pl.DataFrame]:
    """Canonical readings of ``count`` homes, ``days`` days each."""
    random = np.random.default_rng(seed)
    start = LAST_DAY - days
    hours = start.astype("datetime64[us]") + np.arange(days * HOURS).astype("timedelta64[h]")
    degrees = np.round(10 - 9 * np.cos(2 * np.pi * np.arange(days * HOURS) / (365 * HOURS)), 1)
    daily = 1 + 0.5 * np.sin(2 * np.pi * np.arange(days * HOURS) / HOURS)
    for first in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - first)
        load = random.gamma(2, 0.2, (some, 1)) * daily * random.gamma(4, 0.25, (some, len(hours)))
        yield _frame({
            "customer": np.repeat(_names(first, some), len(hours)), "time": np.tile(hours, some),
            "load_kwh": np.round(load, 3).ravel(), "temperature_c": np.tile(degrees, some),
        }).select(pl.col(name).cast(kind) for name, kind in READINGS.items())


def households(count: int, rows: int = 600, categories: int = 100,
               seed: int = 0) -> Iterator[pl.DataFrame]:
    """Canonical purchases of ``count`` households, about ``rows`` each in a year, of
    ``categories`` of which few are bought often."""
    random = np.random.default_rng(seed)
    names = np.array([f"CATEGORY {number}" for number in range(categories)])
    chances = 1 / np.arange(1, categories + 1)**0.7
    start = (LAST_DAY - DAYS).astype("datetime64[us]")
    for first in range(0, count, 10 * _AT_ONCE):
        some = min(10 * _AT_ONCE, count - first)
        counts = random.poisson(random.gamma(2, rows / 2, some)) + 1
        total = int(counts.sum())
        minutes = (random.integers(0, DAYS, total) * 24 * 60 + 9 * 60
                   + random.integers(0, 12 * 60, total))
        yield _frame({
            "customer": np.repeat(_names(first, some), counts),
            "time": start + minutes.astype("timedelta64[m]"),
            "category": names[random.choice(categories, total, p=chances / chances.sum())],
            "quantity": random.integers(1, 4, total), "value": np.round(random.gamma(
                2, 2, total), 2)}).select(
                    pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def write(frames: Iterator[pl.DataFrame], path: Path) -> None:
    writer: pq.ParquetWriter | None = None
    for frame in frames:
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _frame(columns: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(columns).with_columns(pl.lit(PARTNER).alias("partner"))


def _names(first: int, count: int) -> np.ndarray:
    return np.array([f"customer-{number:07d}" for number in range(first, first + count)])
