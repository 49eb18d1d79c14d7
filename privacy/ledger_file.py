"""The lines of a ledger file: what they hold, and that they are the chain that was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from privacy.accounting import RELATION, event_from_json, event_mu_squared

GENESIS = hashlib.sha256(f"privacy ledger 1: {RELATION}".encode()).hexdigest()
_MOST_ROUND = 2**31


class LedgerBroken(RuntimeError):
    """The file is not the chain of lines that was written."""


@dataclass(frozen=True)
class Entry:
    """One line. round 0 is the start of a run (what only its first round costs). failure: of the
    whole run, F above; 0 where what ran is exactly the event, None in a line of an earlier
    version."""

    run_id: str
    round: int
    event: str
    previous: str
    filter: str
    failure: float | None = None

    @property
    def line(self) -> str:
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.line.encode()).hexdigest()


@dataclass(frozen=True)
class Mark:
    """How long a ledger was, and its last line's digest then: who keeps it elsewhere notices a
    tail that was cut, or that became another."""

    entries: int
    head: str

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Mark:
        return cls(len(entries), entries[-1].digest if entries else GENESIS)

    def holds(self, entries: Sequence[Entry]) -> bool:
        """Whether ``entries`` go on from here."""
        return len(entries) >= self.entries and Mark.of(entries[: self.entries]) == self


def read_entries(path: Path) -> tuple[Entry, ...]:
    """Every line of a ledger, checked; none where there is no file. Changes nothing. Raises
    LedgerBroken, whatever the bytes."""
    return tuple(chained(path.read_bytes(), path)[0]) if path.exists() else ()


def chained(content: bytes, path: Path) -> tuple[list[Entry], int]:
    """A file's lines, and how many bytes they are: what a crash left of one more does not count.
    Raises LedgerBroken, and nothing else, whatever the bytes."""
    whole = content.rfind(b"\n") + 1
    entries: list[Entry] = []
    known: set[tuple[str, int]] = set()
    previous = GENESIS
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        entry = _parse(line, where)
        same = not entries or entry.filter == entries[0].filter
        if entry.previous != previous or not same or (entry.run_id, entry.round) in known:
            raise LedgerBroken(f"{where}: does not follow the line before")
        entries.append(entry)
        known.add((entry.run_id, entry.round))
        previous = hashlib.sha256(line).hexdigest()
    return entries, whole


def _parse(line: bytes, where: str) -> Entry:
    try:
        entry = Entry(**json.loads(line))
        if _sound(entry) and entry.line.encode() == line:
            return entry
    except (ValueError, TypeError, RecursionError):  # of another form, UnsupportedEvent included
        pass
    raise LedgerBroken(f"{where}: is not a line that a ledger wrote")


def _sound(entry: Entry) -> bool:
    """Whether each field is of its type and range. Raises UnsupportedEvent."""
    texts = (entry.run_id, entry.event, entry.previous, entry.filter)
    if not all(isinstance(text, str) for text in texts):
        return False
    mu_squared(entry.event)
    failure = entry.failure
    return (type(entry.round) is int and 0 <= entry.round < _MOST_ROUND
            and entry.filter in ("gaussian", "renyi")
            and (failure is None or (type(failure) is float and 0 <= failure <= 1)))


@lru_cache(maxsize=1024)
def mu_squared(text: str) -> float | None:
    return event_mu_squared(event_from_json(text))
