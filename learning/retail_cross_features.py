"""What one customer's history says about one of its categories, in numbers that mean the same at
every retailer: no vocabulary, no currency, no unit of time but the history itself.

Every number of an example is made of its own customer's events alone; nothing is compared with
other customers of the partner, because then one customer would reach into others' gradients, and
clipping could not bound what it contributes. Each feature lies in [-BOUND, BOUND].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from learning.features import BOUND
from learning.weekly_history import sequence, weekly, weeks_of

Column = NDArray[np.float64]

FEATURES = (
    "frequency", "recency", "overdue", "visits_since", "overdue_in_visits", "share_of_visits",
    "later_half", "span", "regularity", "relative_spend", "relative_quantity", "rank",
    "visits", "later_visits", "visit_recency", "visit_regularity", "breadth", "basket",
)

AMOUNT_STEP, MOST_AMOUNT = 2.0**-20, 2.0**30
"""Quantities and values of a customer, category and day are rounded to the one and clipped to the
other."""


def examples_at(days: pl.DataFrame, day: int, history_days: int, quiet_days: int,
                horizon_days: int) -> pl.DataFrame:
    """customer, category, FEATURES, naive, target: one row per pair bought in the
    ``history_days`` before ``day``, but not in the last ``quiet_days`` of them. target: bought
    in the ``horizon_days`` that begin with ``day``. ``days``: customer, category, day (since
    1970-01-01), quantity, value, one row per customer, category and day."""
    past = days.filter(pl.col("day").is_between(day - history_days, day - 1)).with_columns(
        (day - pl.col("day")).alias("age"), _whole("quantity"), _whole("value"))
    future = days.filter(pl.col("day").is_between(day, day + horizon_days - 1)).select(
        "customer", "category", pl.lit(1.0).alias("target")).unique()
    visits = past.select("customer", "age").unique().sort("customer", "age", descending=[
        False, True])
    asked = pl.col("last") > quiet_days
    found = (
        _pairs(past, history_days).filter(asked)
        .join(_customers(past, visits, history_days), on="customer")
        .join(_visits_since(past, visits), on=["customer", "category"])
        .join(future, on=["customer", "category"], how="left")
        .with_columns(pl.col("target").fill_null(0.0))
    )
    columns = {name: found[name].cast(pl.Float64).to_numpy() for name in found.columns[2:]}
    return found.select("customer", "category", pl.Series("naive", _naive(columns)), "target",
                        *(pl.Series(name, column) for name, column in zip(
                            FEATURES, _features(columns, history_days), strict=True))).select(
        "customer", "category", *FEATURES, "naive", "target").sort("customer", "category")


def history_at(days: pl.DataFrame, asked: pl.DataFrame, day: int,
               history_days: int) -> NDArray[np.float32]:
    """(m, weeks * channels) in the order of weekly_history.CHANNELS: the weeks before ``day`` of
    each row of ``asked`` (:func:`examples_at`)."""
    weeks = weeks_of(history_days)
    past = days.filter(pl.col("day").is_between(day - history_days, day - 1)).select(
        "customer", "category", (day - pl.col("day")).cast(pl.Int64).alias("age"))
    numbered = asked.select("customer", "category", pl.int_range(pl.len()).alias("row"))
    bought = past.join(numbered, on=["customer", "category"])
    customer = numbered["customer"].rank("dense").cast(pl.Int64) - 1
    visits = past.select("customer", "age").unique().join(
        numbered.select("customer", customer.alias("row")).unique(), on="customer")
    by_pair, by_customer = (
        weekly(found["row"].to_numpy(), found["age"].to_numpy(), rows, weeks)
        for found, rows in ((bought, len(asked)), (visits, customer.n_unique())))
    return sequence((by_pair, by_customer[customer.to_numpy()]), BOUND)


def _whole(name: str) -> pl.Expr:
    """As an integer: sums of doubles differ in their last bits with the order in which threads add
    them, and that depends on who else is in the data."""
    amount = pl.col(name).cast(pl.Float64).fill_nan(0.0).clip(-MOST_AMOUNT, MOST_AMOUNT)
    return (amount / AMOUNT_STEP).round().cast(pl.Int64)


def _amount(name: str) -> pl.Expr:
    return (pl.col(name).sum().clip(0) * AMOUNT_STEP).alias(name)


def _pairs(past: pl.DataFrame, history_days: int) -> pl.DataFrame:
    """One row per (customer, category). last, first: age in days, 1 is the day before; gap2: sum
    of squared gaps between purchases; rarer: how many of the customer's ``pairs`` categories were
    bought on fewer days."""
    gaps = -pl.col("age").diff().cast(pl.Float64)
    pairs = past.group_by("customer", "category", maintain_order=True).agg(
        pl.len().cast(pl.Float64).alias("days"),
        pl.col("age").min().cast(pl.Float64).alias("last"),
        pl.col("age").max().cast(pl.Float64).alias("first"),
        (pl.col("age") * 2 <= history_days).sum().cast(pl.Float64).alias("later"),
        (gaps**2).sum().alias("gap2"),
        _amount("value"), _amount("quantity"))
    return pairs.with_columns(
        (pl.col("days").rank("min") - 1).cast(pl.Float64).over("customer").alias("rarer"),
        pl.len().cast(pl.Float64).over("customer").alias("pairs"))


def _customers(past: pl.DataFrame, visits: pl.DataFrame, history_days: int) -> pl.DataFrame:
    """One row per customer: the same of its visits (v_...), and of all its lines."""
    gaps = -pl.col("age").diff().cast(pl.Float64)
    of_visits = visits.group_by("customer", maintain_order=True).agg(
        pl.len().cast(pl.Float64).alias("v_days"),
        pl.col("age").min().cast(pl.Float64).alias("v_last"),
        pl.col("age").max().cast(pl.Float64).alias("v_first"),
        (pl.col("age") * 2 <= history_days).sum().cast(pl.Float64).alias("v_later"),
        (gaps**2).sum().alias("v_gap2"))
    of_lines = past.group_by("customer").agg(
        pl.len().cast(pl.Float64).alias("lines"),
        pl.col("category").n_unique().cast(pl.Float64).alias("categories"),
        _amount("value").alias("all_value"), _amount("quantity").alias("all_quantity"))
    return of_visits.join(of_lines, on="customer")


def _visits_since(past: pl.DataFrame, visits: pl.DataFrame) -> pl.DataFrame:
    """since: visits of the customer after the last purchase of the category."""
    numbered = visits.sort("customer", "age").with_columns(
        pl.int_range(pl.len()).over("customer").cast(pl.Float64).alias("since"))
    return (past.group_by("customer", "category").agg(pl.col("age").min())
            .join(numbered, on=["customer", "age"]).drop("age"))


def _features(of: Mapping[str, Column], history_days: int) -> list[NDArray[np.float32]]:
    """(m,) each, in the order of FEATURES. Offsets and divisors are constants that centre typical
    values, not statistics of anybody's data.

    In numpy, whose operations give an element the same bits wherever it stands: Polars divides a
    column of one row, or of one value, in another way, so that the last bits of a customer's
    features told whether it was alone."""
    days, visits, log = of["days"], of["v_days"], np.log
    half = history_days / 2

    def cycle(count: Column, first: Column, last: Column) -> Column:
        return np.maximum(np.where(count > 1, (first - last) / (count - 1), half), 1)

    def variation(gap2: Column, count: Column, first: Column, last: Column) -> Column:
        """Coefficient of variation of the gaps; 1, as of purchases at random, for fewer than 2."""
        mean2 = cycle(count, first, last)**2
        return np.where(count > 2, np.sqrt(np.maximum(gap2 / (count - 1) / mean2 - 1, 0)), 1.0)

    with np.errstate(divide="ignore", invalid="ignore"):
        columns = (
            1.5 * (log(days) - 0.3),
            1.0 - 4.0 * (np.sqrt(of["last"] / history_days) - 0.6),
            log(of["last"] / cycle(days, of["first"], of["last"])),
            log(1 + of["since"]) - 1.0,
            log((1 + of["since"]) * days / visits) + 0.2,
            log(days / visits) + 1.5,
            1.5 * (log(1 + of["later"]) - 0.4),
            log(1 + (of["first"] - of["last"]) * 12 / history_days) - 0.5,
            2.0 * (1.0 - variation(of["gap2"], days, of["first"], of["last"])),
            log((1e-9 + of["value"] / days) / (1e-9 + of["all_value"] / of["lines"])),
            log((1e-9 + of["quantity"] / days) / (1e-9 + of["all_quantity"] / of["lines"])),
            2.0 * (of["rarer"] / of["pairs"]),
            log(visits) - 1.5,
            log(1 + of["v_later"]) - 1.2,
            0.6 - 2.0 * np.sqrt(of["v_last"] / history_days),
            2.0 * (1.0 - variation(of["v_gap2"], visits, of["v_first"], of["v_last"])),
            0.7 * (log(of["categories"]) - 3.0),
            log(of["lines"] / visits) - 1.8,
        )
    return [np.clip(np.nan_to_num(column, nan=0.0, posinf=BOUND, neginf=-BOUND), -BOUND, BOUND)
            .astype(np.float32) for column in columns]


def _naive(of: Mapping[str, Column]) -> NDArray[np.float32]:
    """Frequency x activity: days with the category, times the root of 1 + visits in the later
    half of the history. The strongest rule without fitted numbers among those tried on
    validation (with or without recency, visits since, the later half alone). On a log scale,
    shifted so that histograms of it use the same cells as a model's logits."""
    rule = np.log(of["days"]) + 0.5 * np.log(1 + of["v_later"])
    return (rule - 2.5).astype(np.float32)
