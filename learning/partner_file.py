"""One partner's events: reading them as arrays, writing one file per partner."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from learning.features import Events

COLUMNS: Mapping[str, pl.DataType] = {
    "partner": pl.String(), "customer": pl.String(), "time": pl.Datetime("us"),
    "category": pl.String(), "quantity": pl.Float64(), "value": pl.Float64(),
}
"""Schema of a canonical events file."""


def read_events(frame: pl.LazyFrame, categories: Sequence[str]) -> Events:
    """Canonical events (COLUMNS) as arrays: one row per customer, category and day."""
    codes = {category: code for code, category in enumerate(categories)}
    daily = (
        frame.select(
            "customer",
            pl.col("category")
            .replace_strict(codes, default=-1, return_dtype=pl.Int64).alias("code"),
            pl.col("time").dt.date().cast(pl.Int32).cast(pl.Int64).alias("day"),
            "quantity", "value")
        .group_by("customer", "code", "day")
        .agg(pl.col("quantity").sum(), pl.col("value").sum())
        .sort("customer", "day", "code")
        .collect()
    )
    names, customer = np.unique(daily["customer"].to_numpy(), return_inverse=True)
    return Events(
        tuple(str(name) for name in names),
        customer.astype(np.int64),
        daily["code"].to_numpy(),
        daily["day"].to_numpy(),
        _float32(daily["quantity"]),
        _float32(daily["value"]),
    )


def write_partners(events: pl.DataFrame, folder: Path) -> dict[str, Path]:
    """Partner -> its file in ``folder``, which must exist."""
    parts = {str(key[0]): part for key, part in
             events.partition_by("partner", as_dict=True, maintain_order=True).items()}
    paths = {name: folder / f"{file_name(name)}.parquet" for name in sorted(parts)}
    for name, path in paths.items():
        parts[name].write_parquet(path)
    return paths


def file_name(partner: str) -> str:
    """A name that any file system takes; distinct partners get distinct names."""
    plain = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "-_") else "_"
                    for mark in partner)[:60]
    if plain == partner:
        return plain
    return f"{plain}-{hashlib.sha256(partner.encode()).hexdigest()[:8]}"


def cache_folder() -> Path:
    """$VEILSUM_CACHE, else ~/.cache/veilsum; need not exist, and can be deleted at any time."""
    return Path(os.environ.get("VEILSUM_CACHE") or Path.home() / ".cache" / "veilsum")


def cached(key: str, make: Callable[[], pl.DataFrame], folder: Path) -> dict[str, Path]:
    """Copies in ``folder`` of the partner files that ``make`` gives, made once per ``key``.

    An entry of the cache appears under its final name only when it
    is complete, so an interrupted or a parallel run cannot leave half of it. Where the cache
    cannot be written, the files are made in ``folder`` alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = cache_folder()
    ready = root / key
    if not ready.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
        except OSError:
            return write_partners(make(), folder)
        try:
            write_partners(make(), work)
            work.rename(ready)
        except OSError:
            if not ready.is_dir():  # not merely another run that was faster
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    copies = [Path(shutil.copyfile(path, folder / path.name))
              for path in sorted(ready.glob("*.parquet"))]
    return dict(sorted((partner_of(path), path) for path in copies))


def partner_of(path: Path) -> str:
    """The partner that a canonical file belongs to."""
    frame = pl.scan_parquet(path, glob=False)
    return str(frame.select(pl.col("partner").first()).collect().item())


def _float32(column: pl.Series) -> np.ndarray:
    values = np.nan_to_num(column.to_numpy().astype(np.float64), nan=0.0)
    return np.clip(values, -1e30, 1e30).astype(np.float32)
