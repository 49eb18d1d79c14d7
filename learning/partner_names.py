"""What is wrong with the names of partners, which become rows of results and names in MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

SUMMARIES = ("all", "held out")
"""Rows of every results table beside the partners'."""
_BOUNDS = ("", "_low", "_high")


def slug(text: str) -> str:
    """``text`` as one MLflow name: a slash would open a folder, other marks are refused."""
    return re.sub(r"[^\w.\- ]", "_", text.strip()).replace(" ", "_") or "_"


def metric_ends(row: str) -> set[str]:
    """What stands after the metric itself in the names of one row (server.tracking_names)."""
    end = "" if row == "all" else f"_{slug(row)}"
    ends = {f"{column}{end}" for column in ("", "_naive", "_local", "_pooled")}
    if row in SUMMARIES:
        ends |= {f"{value}{end}{bound}" for bound in _BOUNDS
                 for value in ("", "_gain_over_naive", "_gain_over_local")}
    return ends


def confused(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(what, cure) of names of which two rows of results, or two metrics, would be one."""
    partners = sorted(set(names))
    taken = set().union(*map(metric_ends, SUMMARIES))
    reserved = [name for name in partners if name in SUMMARIES or taken & metric_ends(name)]
    for name in reserved:
        yield f"{name!r} is a word of the results themselves", "name the partner otherwise"
    owners: dict[str, str] = {}
    for name in partners:
        others = {owners.setdefault(end, name) for end in sorted(metric_ends(name))} - {name}
        if others and name not in reserved:
            yield (f"{min(others)!r} and {name!r} would be one name in MLflow ({slug(name)})",
                   "rename one of them")


def alike(names: Sequence[str]) -> Iterator[str]:
    """Of names that differ by nothing but case or spaces: mostly one partner, spelled twice."""
    spellings: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        spellings.setdefault("".join(name.casefold().split()), []).append(name)
    for together in spellings.values():
        if len(together) > 1:
            yield f"{' and '.join(map(repr, together))} differ in case or spaces alone"
