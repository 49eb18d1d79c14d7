"""What a file is, as its first bytes show: CSV, Parquet, or no table at all."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c")
"""First bytes of gzip, bzip2, xz, Zstandard and 7-Zip."""
_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_SHEET = "or, of a spreadsheet, save the sheet as CSV in UTF-8"
_HEADER_BYTES = 65_536


def no_table(path: Path) -> tuple[str, str] | None:
    """What is wrong and what cures it, where the file shows that before it is read."""
    if path.is_dir():
        return "it is a folder", ("name one file; only task=utility_load reads a folder, and not "
                                  "at a site")
    if not path.is_file():
        return "there is no such file", "check the path"
    if is_parquet(path):
        return None
    with path.open("rb") as file:
        first = file.read(8)
    if first.startswith(_PACKED):
        return "it is packed", "unpack it first"
    if first.startswith((_ZIP, _OLD_EXCEL)):
        return "it is a zip archive or a spreadsheet", f"unpack it first, {_SHEET}"
    if path.suffix.lower() == ".parquet":
        return "it is named .parquet, and is not Parquet", "write it anew, or name a CSV .csv"
    if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first[:2]:
        return "it is in UTF-16, not in UTF-8", "save it as CSV in UTF-8"
    return None


def is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def first_row(path: Path) -> int:
    """Number of the first row of data as a person counts: the header of a CSV is line 1."""
    return 1 if is_parquet(path) else 2


def separator(path: Path) -> str:
    """Comma, semicolon or tab: whichever the header has most of."""
    with path.open("rb") as file:
        header = file.readline(_HEADER_BYTES)
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def header(path: Path) -> list[str]:
    """The names of a CSV's columns as they stand there: polars renames one that comes twice."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file.read(_HEADER_BYTES).splitlines(), delimiter=separator(path))
        return next((row for row in rows if row), [])


def plain_name(column: str) -> str:
    """By which a column is known, however it is spelled; a blank name stays as it is."""
    return column.strip().lower() or column


def named_twice(columns: Sequence[str]) -> list[str]:
    """Columns that have the same name; blank ones are no names (a spreadsheet's empty columns)."""
    counts = Counter(plain_name(name) for name in columns if name.strip())
    return [name for name, count in counts.items() if count > 1]
