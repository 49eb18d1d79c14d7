"""A partner's own record of what its customers' privacy was spent on, and the gate to it.

One file, one JSON object a line, each holding the SHA-256 of the line before: an edit, a
reordering or a removal in the middle breaks the chain. Removing lines from the end, or another
number in the last, does not; :class:`Mark` kept elsewhere shows it (``client.site_folder``).

The gate is a privacy filter: events may be chosen after seeing earlier releases. Gaussian
releases are composed exactly (mu^2 adds up: arXiv 2210.17520), anything else by Renyi accounting
(RDP filter, arXiv 2008.11193), which is 6 to 13% above what a run reports. A ledger keeps the
one that its first spending fits, because switching between filters has no proof.

Delta. What a run releases is not quite its events, and what is missing adds up over runs:

- with a probability of F at most, over the whole run (``PrivacyPlan.failure``), its rounding bound
  breaks or a value saturates. Over runs 1..n, each chosen after seeing the earlier ones, some run
  does so with probability sum F_i at most: a bound on F_i holds for every past, so the expectations
  add up. Then eps at delta needs delta - (1 + e^eps) sum F_i from the events
  (:func:`privacy.accounting.epsilon_with_failures`). It is this ledger's eps that counts, not the
  run's: a run that set aside little for its own small eps costs more under a large limit;
- a discrete Gaussian's delta passes the continuous one's by a part 1/2000 (``privacy.plan``, where
  this is argued): H(discrete) <= (1 + 1/2000) H(continuous) at every eps. Replacing the runs by
  continuous ones one after the other, H of a composition being an average of H of one part at
  shifted eps, gives a factor of (1 + 1/2000) a run. Renyi accounting needs none of it: there the
  discrete Gaussian is as good as the continuous one.

So the whole is charged delta_events (1 + 1/2000)^n + (1 + e^eps) sum F_i, and Guarantee: whatever
runs the gate let pass, that is at most ``delta`` for an eps of at most ``epsilon_limit``. Not
counted: the sampler (2^-60 a run, ``privacy.noise``), times 1 + e^eps.

Lines of earlier versions lack F. Sites refused runs at a larger delta than their own, and a run
set aside F = delta / 2000 / (1 + e^eps') with eps' above what its lines cost, so the ledger's delta
and the eps of the run's own lines bound it from above.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import dp_accounting as dp

from privacy.accounting import (
    RDP_ORDERS,
    epsilon_with_failures,
    event_from_json,
    event_json,
    event_rdp,
    gaussian_epsilon,
    rdp_to_epsilon,
)
from privacy.ledger_file import GENESIS, Entry, Mark, chained, mu_squared

LATTICE = 1 / 2000
"""By which part of it the discrete Gaussian's delta may pass the continuous one's
(``privacy.plan``)."""
MOST_SET_ASIDE = 1 / 4000
"""F of a run over its delta is never more: F (1 + e^eps') = delta / 2000 for an eps' above 0."""


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


class Ledger:
    """``epsilon_limit`` None only records. Reading happens at every call: any number of
    processes may hold the same ledger."""

    def __init__(self, path: Path, epsilon_limit: float | None, delta: float) -> None:
        self._path = path
        self._limit = epsilon_limit
        self._delta = delta

    def spend(self, run_id: str, round_number: int, event: dp.DpEvent, *, failure: float,
              start: dp.DpEvent | None = None) -> str:
        """Write the spending of one round to disk, before the data is used; return the head.

        ``start`` is charged once a run, with the first round this ledger sees of it, and so is
        ``failure``. The same run, round and event again is the same spending: nothing is written.
        Guarantee: when this returns, the entry survived fsync, and all entries together stay
        within the limit. Raises BudgetExceeded, SpentOtherwise or LedgerBroken; then nothing was
        written.
        """
        wanted = _wanted({round_number: event}, start)
        with self._locked() as descriptor:
            entries, whole = self._read(descriptor)
            new = _unspent(entries, run_id, wanted)
            added = self._chain(entries, run_id, new, failure)
            self._check(entries, added)
            if added:
                # What a crash left of a line was never granted.
                os.ftruncate(descriptor, whole)
                _append(descriptor, "".join(entry.line + "\n" for entry in added))
            return (entries + added)[-1].digest

    def check(self, run_id: str, rounds: Mapping[int, dp.DpEvent], *, failure: float,
              start: dp.DpEvent | None = None) -> None:
        """Raises what spending all of ``rounds`` would raise, before the first is spent: a run
        that passes the limit half-way has cost its customers privacy for nothing. Writes
        nothing."""
        entries = list(self.entries())
        new = _unspent(entries, run_id, _wanted(rounds, start))
        self._check(entries, self._chain(entries, run_id, new, failure))

    @property
    def head(self) -> str:
        """Hash of the last line: what another party keeps to notice a cut tail."""
        return Mark.of(self.entries()).head

    def entries(self) -> tuple[Entry, ...]:
        """Every line, checked; none where there is no file, and none is made. Raises
        LedgerBroken."""
        if not self._path.exists():
            return ()
        with self._locked() as descriptor:
            return tuple(self._read(descriptor)[0])

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
        parts = {text: mu_squared(text) for text in counts}
        gaussian = entries[0].filter == "gaussian"
        if gaussian and None not in parts.values():
            mu = math.sqrt(math.fsum(count * (parts[text] or 0.0)
                                     for text, count in counts.items()))
            failures = _failures(entries, self._delta)
            inflation = (1 + LATTICE) ** sum(map(bool, failures))
            return epsilon_with_failures(
                lambda delta: gaussian_epsilon(mu, delta / inflation), self._delta,
                math.fsum(failures))
        if gaussian and self._limit is not None:
            return math.inf
        divergences = tuple(
            math.fsum(count * event_rdp(text)[order] for text, count in counts.items())
            for order in range(len(RDP_ORDERS)))
        return epsilon_with_failures(lambda delta: rdp_to_epsilon(divergences, delta), self._delta,
                                     math.fsum(_failures(entries, self._delta)))

    def _chain(self, entries: list[Entry], run_id: str, new: list[tuple[int, str]],
               failure: float) -> list[Entry]:
        added: list[Entry] = []
        for number, text in new:
            last = next(reversed(added or entries), None)
            if last is None:
                # The start event alone is Gaussian; the round decides which filter fits.
                pure = all(mu_squared(other) is not None for _, other in new)
                chosen, previous = ("gaussian" if pure else "renyi"), GENESIS
            else:
                chosen, previous = last.filter, last.digest
            added.append(Entry(run_id, number, text, previous, chosen, float(failure)))
        return added

    def _read(self, descriptor: int) -> tuple[list[Entry], int]:
        return chained(os.pread(descriptor, os.fstat(descriptor).st_size, 0), self._path)

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


def _failures(entries: Sequence[Entry], delta: float) -> list[float]:
    """F of each run (see above)."""
    runs: dict[str, list[Entry]] = {}
    for entry in entries:
        runs.setdefault(entry.run_id, []).append(entry)
    found = []
    for lines in runs.values():
        stated = [line.failure for line in lines if line.failure is not None]
        earlier = [_earlier_failure(lines, delta)] if len(stated) < len(lines) else []
        found.append(max(stated + earlier))
    return found


def _earlier_failure(lines: Sequence[Entry], delta: float) -> float:
    """The most that a run set aside of which an earlier version wrote ``lines``."""
    parts = [mu_squared(line.event) for line in lines]
    mu = math.sqrt(math.fsum(part for part in parts if part is not None))
    own = 0.0 if None in parts else gaussian_epsilon(mu, delta)
    return delta * LATTICE / (1 + math.exp(min(own, 200.0)))


def _wanted(rounds: Mapping[int, dp.DpEvent], start: dp.DpEvent | None) -> dict[int, str]:
    """Round -> event as a line holds it; a run's start stands as round 0."""
    if min(rounds) < 1:
        raise ValueError(f"rounds count from 1, got {min(rounds)}")
    events = dict(sorted(rounds.items()))
    if start is not None and not isinstance(start, dp.NoOpDpEvent):
        events = {0: start, **events}
    return {number: _written(event) for number, event in events.items()}


def _written(event: dp.DpEvent) -> str:
    """Raises UnsupportedEvent for what could not be read again."""
    text = event_json(event)
    event_from_json(text)
    return text


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
