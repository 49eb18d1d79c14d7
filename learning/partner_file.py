"""One file of canonical rows per partner."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

COLUMNS: Mapping[str, pl.DataType] = {
    "partner": pl.String(), "customer": pl.String(), "time": pl.Datetime("us"),
    "category": pl.String(), "quantity": pl.Float64(), "value": pl.Float64(),
}
"""Schema of a canonical events file."""


def write_partners(events: pl.DataFrame, folder: Path) -> dict[str, Path]:
    """Partner -> its file in ``folder``, which must exist."""
    parts = {str(key[0]): part for key, part in
             events.partition_by("partner", as_dict=True, maintain_order=True).items()}
    paths = {name: folder / f"{file_name(name)}.parquet" for name in sorted(parts)}
    for name, path in paths.items():  # so that some customers can be read without the others
        parts[name].sort("customer", maintain_order=True).write_parquet(path)
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
    return str(pl.scan_parquet(path, glob=False).select("partner").head(1).collect().item())
