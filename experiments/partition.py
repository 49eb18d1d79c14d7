"""Simulation only: the partners' customers divided further, into as many partners as wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from conf.schema import InvalidConfig


def split_further(files: Mapping[str, Path], partners: int, folder: Path) -> dict[str, Path]:
    """Partner -> its file of events: every file divided by a hash of the customer, in parts as
    equal as their customers allow, until there are ``partners``.

    A larger partner gives more parts (greatest remainders); each gives at least one. Raises
    InvalidConfig for fewer partners than files or more than customers.
    """
    names = {name: _customers(path) for name, path in files.items()}
    total = sum(map(len, names.values()))
    if not len(files) <= partners <= total:
        raise InvalidConfig("federation.split_into", f"the {len(files)} partners of this table "
                            f"hold {total} customers; choose a number from {len(files)} to "
                            f"{total}, got {partners}")
    parts = shares({name: len(customers) for name, customers in names.items()}, partners)
    return {part: path for name in files for part, path in
            _divide(name, files[name], names[name], parts[name], folder).items()}


def _customers(path: Path) -> list[str]:
    """In an order that depends on each name alone, and on nothing that a customer did."""
    frame = pl.scan_parquet(path, glob=False)
    names = frame.select(pl.col("customer").unique()).collect()["customer"]
    return sorted(names, key=lambda name: hashlib.sha256(f"split\0{name}".encode()).digest())


def shares(customers: Mapping[str, int], partners: int) -> dict[str, int]:
    """Parts of each file: one, and the others by largest quotient of customers a part (D'Hondt),
    which never gives more parts than customers before all files have as many."""
    given = dict.fromkeys(customers, 1)
    for _ in range(partners - len(customers)):
        most = max(customers, key=lambda name: customers[name] / (given[name] + 1))
        given[most] += 1
    return given


def _divide(name: str, path: Path, customers: list[str], parts: int,
            folder: Path) -> dict[str, Path]:
    if parts == 1:
        return {name: path}
    numbers = [position % parts for position in range(len(customers))]
    table = pl.DataFrame({"customer": customers, "part": numbers})
    events = pl.read_parquet(path, glob=False).join(table, on="customer", how="left",
                                                    maintain_order="left")
    digits, files = len(str(parts)), {}
    for part in range(parts):
        own = f"{name}_{part + 1:0{digits}d}"
        files[own] = folder / f"{hashlib.sha256(own.encode()).hexdigest()[:16]}.parquet"
        rows = events.filter(pl.col("part") == part).drop("part")
        rows.with_columns(partner=pl.lit(own)).write_parquet(files[own])
    return files
