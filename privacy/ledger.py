"""A partner's own record of what its customers' privacy was spent on, and the gate to it.

One file, one JSON object a line, each holding the SHA-256 of the line before: an edit, a
reordering or a removal in the middle breaks the chain. Removing lines from the end does not;
keep :attr:`Ledger.head` with another party to notice that.

The gate is a privacy filter: events may be chosen after seeing earlier releases. Gaussian
releases are composed exactly (mu^2 adds up: arXiv 2210.17520), anything else by Renyi accounting
(RDP filter, arXiv 2008.11193), which is 6 to 13% above what a run reports. A ledger keeps the
one that its first spending fits, because switching between filters has no proof.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dp_accounting as dp

from privacy.accounting import (
    RDP_ORDERS,
    RELATION,
    event_from_json,
    event_json,
    event_mu_squared,
    event_rdp,
    gaussian_epsilon,
    rdp_to_epsilon,
)

_GENESIS = hashlib.sha256(f"privacy ledger 1: {RELATION}".encode()).hexdigest()


class LedgerBroken(RuntimeError):
    """The file is not the chain of lines that was written."""


class SpentOtherwise(RuntimeError):
    """This run and round were already spent on another event: noise would be drawn twice."""


class BudgetExceeded(RuntimeError):
    """What is asked for would pass this partner's limit. spent, asked (both together), limit:
    epsilon at the ledger's delta."""

    def __init__(self, spent: float, asked: float, limit: float, delta: float, why: str) -> None:
        super().__init__(
            f"too little is left of this partner's privacy budget: epsilon {spent:.4g} spent, "
            f"{asked:.4g} with what is asked for, limit {limit:.4g} (delta {delta:g}). {why}")
        self.spent, self.asked, self.limit = spent, asked, limit


@dataclass(frozen=True)
class Entry:
    """One line. round 0 is the start of a run (what only its first round costs)."""

    run_id: str
    round: int
    event: str
    previous: str
    filter: str

    @property
    def line(self) -> str:
        return json.dumps(vars(self), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.line.encode()).hexdigest()


class Ledger:
    """``epsilon_limit`` None only records. Reading happens at every call: any number of
    processes may hold the same ledger."""

    def __init__(self, path: Path, epsilon_limit: float | None, delta: float) -> None:
        self._path = path
        self._limit = epsilon_limit
        self._delta = delta

    def spend(self, run_id: str, round_number: int, event: dp.DpEvent, *,
              start: dp.DpEvent | None = None) -> str:
        """Write the spending of one round to disk, before the data is used; return the head.

        ``start`` is charged once a run, with the first round this ledger sees of it. The same
        run, round and event again is the same spending: nothing is written. Guarantee: when this
        returns, the entry survived fsync, and all entries together stay within the limit.
        Raises BudgetExceeded, SpentOtherwise or LedgerBroken; then nothing was written.
        """
        wanted = _wanted({round_number: event}, start)
        with self._locked() as descriptor:
            entries = self._read(descriptor)
            new = _unspent(entries, run_id, wanted)
            added = self._chain(entries, run_id, new)
            self._check(entries, added)
            if added:
                _append(descriptor, "".join(entry.line + "\n" for entry in added))
            return (entries + added)[-1].digest

    def check(self, run_id: str, rounds: Mapping[int, dp.DpEvent], *,
              start: dp.DpEvent | None = None) -> None:
        """Raises what spending all of ``rounds`` would raise, before the first is spent: a run
        that passes the limit half-way has cost its customers privacy for nothing. Writes
        nothing."""
        with self._locked() as descriptor:
            entries = self._read(descriptor)
        new = _unspent(entries, run_id, _wanted(rounds, start))
        self._check(entries, self._chain(entries, run_id, new))

    @property
    def head(self) -> str:
        """Hash of the last line: what another party keeps to notice a cut tail."""
        with self._locked() as descriptor:
            entries = self._read(descriptor)
        return entries[-1].digest if entries else _GENESIS

    def entries(self) -> tuple[Entry, ...]:
        """Every line, checked. Raises LedgerBroken."""
        with self._locked() as descriptor:
            return tuple(self._read(descriptor))

    def spent(self) -> float:
        """Epsilon at the ledger's delta of everything so far."""
        return self._epsilon(list(self.entries()))

    def _check(self, entries: list[Entry], added: list[Entry]) -> None:
        if self._limit is None or not added:
            return
        asked = self._epsilon(entries + added)
        if asked <= self._limit:
            return
        raise BudgetExceeded(self._epsilon(entries), asked, self._limit, self._delta,
                             _advice(added, asked))

    def _epsilon(self, entries: list[Entry]) -> float:
        if not entries:
            return 0.0
        counts = Counter(entry.event for entry in entries)
        parts = {text: _mu_squared(text) for text in counts}
        if None not in parts.values():
            if entries[0].filter == "gaussian":
                total = math.fsum(counts[text] * (part or 0.0) for text, part in parts.items())
                return gaussian_epsilon(math.sqrt(total), self._delta)
        elif entries[0].filter == "gaussian" and self._limit is not None:
            return math.inf
        divergences = [math.fsum(count * event_rdp(text)[order] for text, count in counts.items())
                       for order in range(len(RDP_ORDERS))]
        return rdp_to_epsilon(tuple(divergences), self._delta)

    def _chain(self, entries: list[Entry], run_id: str,
               new: list[tuple[int, str]]) -> list[Entry]:
        added: list[Entry] = []
        for number, text in new:
            last = next(reversed(added or entries), None)
            if last is None:
                # The start event alone is Gaussian; the round decides which filter fits.
                pure = all(_mu_squared(other) is not None for _, other in new)
                chosen, previous = ("gaussian" if pure else "renyi"), _GENESIS
            else:
                chosen, previous = last.filter, last.digest
            added.append(Entry(run_id, number, text, previous, chosen))
        return added

    def _read(self, descriptor: int) -> list[Entry]:
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # A crash in the middle of a write: that spending was never granted.
            os.ftruncate(descriptor, whole)
        entries: list[Entry] = []
        previous = _GENESIS
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            entry = _parse(line, f"{self._path}, line {number}")
            same = not entries or entry.filter == entries[0].filter
            if entry.previous != previous or entry.line.encode() != line or not same:
                raise LedgerBroken(f"{self._path}, line {number}: does not follow the line before")
            entries.append(entry)
            previous = hashlib.sha256(line).hexdigest()
        return entries

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        created = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if created:
                _sync_folder(self._path.parent)
            yield descriptor
        finally:
            os.close(descriptor)


def _wanted(rounds: Mapping[int, dp.DpEvent], start: dp.DpEvent | None) -> dict[int, str]:
    """Round -> event as a line holds it; a run's start stands as round 0."""
    if min(rounds) < 1:
        raise ValueError(f"rounds count from 1, got {min(rounds)}")
    events = dict(sorted(rounds.items()))
    if start is not None and not isinstance(start, dp.NoOpDpEvent):
        events = {0: start, **events}
    return {number: event_json(event) for number, event in events.items()}


def _unspent(entries: list[Entry], run_id: str,
             wanted: Mapping[int, str]) -> list[tuple[int, str]]:
    """Of ``wanted``, what the run has not spent. Raises SpentOtherwise."""
    known = {entry.round: entry.event for entry in entries if entry.run_id == run_id}
    for number, text in wanted.items():
        if known.get(number, text) != text:
            raise SpentOtherwise(
                f"run {run_id} round {number} was spent on another release before; a "
                "changed configuration needs a new run")
    return [(number, text) for number, text in wanted.items() if number not in known]


def _advice(added: list[Entry], asked: float) -> str:
    advice = "Raise the site's epsilon-limit or lower privacy.epsilon."
    if added[-1].filter == "renyi":
        return ("Renyi accounting of sampled releases lies 6 to 13% above what a run reports. "
                + advice)
    if math.isinf(asked):
        return ("This ledger began with Gaussian releases and composes nothing else: use "
                "privacy=noise_shares here.")
    return advice


@lru_cache(maxsize=1024)
def _mu_squared(text: str) -> float | None:
    return event_mu_squared(event_from_json(text))


def _parse(line: bytes, where: str) -> Entry:
    try:
        fields: dict[str, Any] = json.loads(line)
        entry = Entry(**fields)
    except (ValueError, TypeError) as error:
        raise LedgerBroken(f"{where}: {error}") from None
    if entry.filter not in ("gaussian", "renyi"):
        raise LedgerBroken(f"{where}: unknown filter {entry.filter!r}")
    return entry


def _append(descriptor: int, text: str) -> None:
    payload = text.encode()
    while payload:
        payload = payload[os.write(descriptor, payload):]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
