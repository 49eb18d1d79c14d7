"""One partner's purchases, held so that some customers' can be read without the others'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from learning.features import Events
from learning.held_rows import HeldRows, RowWriter

_ROW = np.dtype([("category", "i4"), ("day", "i4"), ("quantity", "f8"), ("value", "f8")])
_AT_ONCE = 2**20
"""Rows and pairs (customer, category) looked at together."""


@dataclass(frozen=True)
class Purchases:
    """names: (n,) customers, sorted; categories: (c,) what a row's category counts in, -1 for any
    other; rows: one per customer, category and day, [first, end) of each customer (n,), sorted
    by day and category."""

    names: tuple[str, ...]
    categories: tuple[str, ...]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    rows: HeldRows

    @classmethod
    def of(cls, pieces: Iterable[pl.DataFrame],
           categories: Sequence[str] | None = None) -> Purchases:
        """``pieces``: canonical events (partner_file.COLUMNS), each with all rows of its
        customers. ``categories``: the public vocabulary; None: all that occur, sorted.

        Guarantee: a customer's rows, sums to the bit, are made of its own events alone, in an
        order that their values decide.
        """
        codes = {name: code for code, name in enumerate(categories or ())}
        writer, names, counts = RowWriter(_ROW), [], []
        for piece in pieces:
            if categories is None:
                for name in piece["category"].unique().sort():
                    codes.setdefault(name, len(codes))
            own, starts, rows = _daily(piece, codes)
            writer.append(rows)
            names += own
            counts.append(np.diff(np.append(starts, len(rows))))
        ends = np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))
        firsts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        order = np.argsort(np.array(names, object), kind="stable").astype(np.int64)
        return cls(tuple(names[place] for place in order), tuple(codes), firsts[order],
                   ends[order], writer.done())

    def __len__(self) -> int:
        return len(self.names)

    def events(self, customers: NDArray[np.int64]) -> Events:
        """Of some customers (k,), numbered 0 to k - 1 in the order asked for."""
        counts = self.end[customers] - self.first[customers]
        rows = np.empty(int(counts.sum()), _ROW)
        place = 0
        for first, end in zip(self.first[customers].tolist(), self.end[customers].tolist(),
                              strict=True):
            rows[place:place + end - first] = self.rows.read(first, end)
            place += end - first
        return Events(tuple(self.names[customer] for customer in customers),
                      np.repeat(np.arange(len(customers)), counts),
                      rows["category"].astype(np.int64), rows["day"].astype(np.int64),
                      _float32(rows["quantity"]), _float32(rows["value"]))

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """All customers in turn, as many at a time as memory likes."""
        sizes = np.maximum(self.end - self.first, max(1, len(self.categories)))
        group = np.cumsum(sizes) // _AT_ONCE
        yield from np.split(np.arange(len(self)), np.flatnonzero(np.diff(group)) + 1)


def _daily(piece: pl.DataFrame, codes: dict[str, int]
           ) -> tuple[list[str], NDArray[np.int64], NDArray[np.generic]]:
    """Names of the customers (k,), where the rows of each begin (k,), and all rows (_ROW).
    Summed in the order of what is summed: a sum of doubles differs with it."""
    keys = ("customer", "day", "code")
    lines = piece.select(
        "customer", pl.col("time").dt.date().cast(pl.Int32).alias("day"),
        pl.col("category").replace_strict(codes, default=-1, return_dtype=pl.Int32).alias("code"),
        "quantity", "value").sort(*keys, "quantity", "value")
    new = lines.select(pl.any_horizontal(
        (pl.col(name) != pl.col(name).shift()).fill_null(True) for name in keys))
    first = np.flatnonzero(new.to_series().to_numpy())
    row = np.cumsum(new.to_series().to_numpy()) - 1
    rows = np.empty(len(first), _ROW)
    chosen = lines[first]
    rows["category"], rows["day"] = chosen["code"].to_numpy(), chosen["day"].to_numpy()
    for name in ("quantity", "value"):
        rows[name] = np.bincount(row, lines[name].to_numpy(), minlength=len(first))
    starts = np.flatnonzero(chosen.select(
        (pl.col("customer") != pl.col("customer").shift()).fill_null(True)).to_series().to_numpy())
    return chosen["customer"][starts].to_list(), starts, rows


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(values, nan=0.0), -1e30, 1e30).astype(np.float32)
