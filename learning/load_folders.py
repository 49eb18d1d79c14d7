"""A folder of readings: which files count, and whether its files agree about whose homes are
whose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from learning.tables import Finding, TableError

_NO_DATA = (".md",)
"""What may lie beside the files unread, as may hidden ones; .txt and .json hold data as often."""


@dataclass(frozen=True)
class Part:
    """One file's canonical readings. named: its rows name their partner; else its name does."""

    readings: pl.DataFrame
    named: bool


def files_of(path: Path | str) -> list[Path]:
    """The file itself, or every CSV and Parquet file of a folder. Raises TableError, also where
    anything else lies in it: a partner must not be left out without a word."""
    place = Path(path)
    if not place.is_dir():
        return [place]
    entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
    found = [entry for entry in entries if not entry.is_dir()
             and entry.suffix.lower() in (".csv", ".parquet")]
    folders = [entry.name for entry in entries if entry.is_dir()]
    other = [entry.name for entry in entries if entry not in found and not entry.is_dir()
             and entry.suffix.lower() not in _NO_DATA]
    findings = []
    if folders:
        findings.append(Finding(
            "error", "", f"the folder holds folders ({_listed(folders)}), which are not read",
            "put the files of all partners into one folder, with a partner column in each, or move "
            "what is no data elsewhere"))
    if other:
        findings.append(Finding(
            "error", "", f"the folder holds {_listed(other)}, neither .csv nor .parquet",
            "unpack, convert or rename, or move what is no data out of the folder"))
    if not found and not findings:
        findings.append(Finding("error", "", "the folder holds no .csv and no .parquet",
                                "put one file per partner into it"))
    if findings:
        raise TableError(place, findings, task="utility_load")
    return found


def check_parts(parts: Mapping[str, Part]) -> list[Finding]:
    """What the files of a folder (name -> readings) show only together."""
    return [*_overlaps(parts), *_shared(parts)]


def _overlaps(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Hours of a home that several files hold: nobody can say which of them is right."""
    holders: dict[str, list[str]] = {}
    for name, part in parts.items():
        for partner in part.readings["partner"].unique():
            holders.setdefault(partner, []).append(name)
    for partner, names in sorted(holders.items()):
        if len(names) < 2:
            continue
        rows = pl.concat([
            parts[name].readings.filter(pl.col("partner") == partner)
            .select("customer", "time", file=pl.lit(name)) for name in names])
        twice = rows.filter(pl.struct("customer", "time").is_duplicated())
        files = sorted(twice["file"].unique())
        if files:
            more = f" and {len(files) - 2} more" if len(files) > 2 else ""
            yield Finding(
                "error", "time", f"{' and '.join(files[:2])}{more} hold the same hours of "
                f"{twice['customer'].n_unique():,} homes of {partner!r}",
                "keep each reading in one file alone")


def _shared(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Names of homes that a file shares with another partner while its own partner is only its
    file's name, with nothing that tells two homes apart. A month a file, one home would be several
    customers, and what protects a customer would protect a part of it."""
    if all(part.named for part in parts.values()):
        return
    owners = pl.concat([
        part.readings.select("partner", "customer").unique().with_columns(
            file=pl.lit(name), named=pl.lit(part.named)) for name, part in parts.items()])
    doubtful = owners.filter((pl.col("partner").n_unique() > 1).over("customer")
                             & (~pl.col("named")).any().over("customer"))
    if doubtful.is_empty():
        return
    # Utilities number their meters alike. Two homes are told by an hour that both used otherwise.
    rows = pl.concat([part.readings for part in parts.values()]).join(
        doubtful.select("customer").unique(), on="customer")
    hours = rows.group_by("customer", "time").agg(pl.col("load_kwh").n_unique() > 1)
    different = hours.group_by("customer").agg(pl.col("load_kwh").any()).filter("load_kwh")
    doubtful = doubtful.join(different, on="customer", how="anti")
    if len(doubtful):
        yield Finding(
            "error", "partner", f"{doubtful['customer'].n_unique():,} names of homes stand in "
            f"several of the files {_listed(sorted(doubtful['file'].unique()))}, and without a "
            "partner column each file is a partner, each such home several",
            "add a partner column to every file, or put all readings of a partner into one file "
            "whose homes no other partner names alike")


def _listed(names: Sequence[str]) -> str:
    """The first three."""
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return ", ".join(names)
