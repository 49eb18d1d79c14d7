"""What can be done without a backup once a part of a site's folder is lost: never for less privacy.

- A ledger: what it held cannot be known, so its owner says what its customers' privacy had cost, at
  most, and the ledger goes on from there: one Gaussian release of that epsilon more, and for each
  run that the folder knows the most that a run sets aside of delta (``privacy.ledger``). Who does
  not know gives the site's own limit, which nothing that it granted has passed; then nothing
  more is spent until the limit is raised.
- Which rounds were answered: each round that was spent or left something stays answered. It is sent
  again where its reply is stored, and never computed again.
- Which sums were opened: none of them is opened again.
- Over which partners sums were opened (``sets``): under each key that the folder knows, every model
  without a record counts as opened over a set that nobody knows. The site takes part in sums of it
  under a new key alone, or if its policy admits one more set.
- A run's key, which a note has too, is written anew.
- Who is held out (``split.json``): stands in the configuration of every earlier run; written back
  by hand. A guess could charge a customer in both ledgers.
- Heads and left-over parts: a new run begins without.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dp_accounting as dp

from client.opened_sets import close_key
from client.reply_store import ReplyStore, folder_name
from client.run_notes import Note, parse_note
from client.site_folder import LEDGERS, Loss, SiteFolder, spent_rounds
from encryption.types import RoundId
from keyholder.guard import OpeningGuard
from privacy.accounting import gaussian_mu
from privacy.ledger import MOST_SET_ASIDE, Ledger
from privacy.ledger_file import Entry, Mark, read_entries
from strategies.durable import write_whole


class CannotAccept(ValueError):
    """Says what is missing."""


@dataclass(frozen=True)
class Owner:
    """What the site's owner says: ``spent``: the most that a lost ledger may have held, epsilon at
    ``delta``; None: nothing is said."""

    spent: float | None
    delta: float


def accept_loss(state: Path, owner: Owner) -> list[str]:
    """Make the parts of the folder agree again; what was done, a sentence each. Raises CannotAccept
    before anything is changed."""
    folder = SiteFolder(state)
    with ReplyStore(state / "replies").exclusive():
        losses = folder.losses()
        _check(losses, owner)
        runs = len({path.name for path in folder.notes.paths()} | folder.stored().keys())
        lost = {loss.part for loss in losses}
        damaged = {loss.part for loss in losses if loss.damaged}
        # Without the notes nothing says how long the ledgers were: the owner may charge for that.
        unsure = LEDGERS if "answered" in lost and owner.spent is not None else ()
        done = [_charge(state / name, owner, max(1, runs), name in damaged) for name in LEDGERS
                if name in lost or name in unsure]
        entries = {name: read_entries(state / name) for name in LEDGERS}
        done += _sets(folder) if "sets" in lost else []
        done += _notes(folder, entries, bool(losses))
        done += _claims(folder, [entry for found in entries.values() for entry in found])
    return done


def _check(losses: Sequence[Loss], owner: Owner) -> None:
    parts = {loss.part: loss.what for loss in losses}
    if "split.json" in parts:
        raise CannotAccept(
            f"{parts['split.json']}. Write it as the configuration of the site's earlier runs has "
            'it, in one line: {"seed": 0, "holdout_fraction": 0.2}, and "holdout_partners" sorted '
            "where they name any; a run with another division is then refused")
    lost = [parts[name] for name in LEDGERS if name in parts]
    if lost and owner.spent is None:
        raise CannotAccept(
            f"{'; '.join(lost)}. What it held cannot be known. Say with --spent EPSILON what this "
            "site's customers' privacy had cost at most, and --delta if the site's is not 1e-5: "
            "the ledger goes on from there. If you do not know, give the site's epsilon-limit: "
            "then nothing more is spent until you raise it")


def _charge(path: Path, owner: Owner, runs: int, damaged: bool) -> str:
    """Charge what the owner says, as of ``runs`` runs, on top of what is left of a ledger; a
    damaged one is put aside."""
    assert owner.spent is not None
    kept = ""
    if damaged:
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
        kept = f"; the damaged file is {aside.name}"
    event: dp.DpEvent = dp.GaussianDpEvent(1 / gaussian_mu(owner.spent, owner.delta))
    for number in range(1, runs + 1):
        Ledger(path, None, owner.delta).spend(
            f"loss accepted {time.time_ns()} ({number} of {runs})", 1, event,
            failure=owner.delta * MOST_SET_ASIDE)
        event = dp.NoOpDpEvent()
    return (f"{path.name} holds one release of epsilon {owner.spent:g} at delta {owner.delta:g} "
            f"more, for what was lost{kept}")


def _notes(folder: SiteFolder, ledgers: dict[str, tuple[Entry, ...]], lost: bool) -> list[str]:
    """Write a note for each run that lacks one, and the ledgers' new ends into all of them."""
    if not lost:
        return []
    spent, stored = spent_rounds(ledgers), folder.stored()
    marks = {name: Mark.of(entries) for name, entries in ledgers.items()}
    known = folder.notes.all()
    new = 0
    for name in sorted({*known, *spent, *stored}):
        note, reached = known.get(name), max((*spent.get(name, ()), stored.get(name, 0)))
        if note is None or note.newest < reached:
            new += 1
            note = replace(note or Note(), answered=max(reached, (note or Note()).newest))
        write_whole(folder.notes.folder / name, replace(
            note, marks=marks, sets=folder.kept_sets()).packed())
        if note.key:
            write_whole(folder.state / "keys" / name, note.key.encode())
    return [f"the notes of {len(known.keys() | spent.keys() | stored.keys())} runs agree with the "
            f"ledgers; the rounds of {new} count as answered, and are never computed again"]


def _sets(folder: SiteFolder) -> list[str]:
    """Before the notes are written anew: close the keys of all runs."""
    keys = {note.key for note in folder.notes.all().values() if note}
    keys |= {path.read_text() for path in (folder.state / "keys").glob("[0-9a-f]*")}
    known = sorted(filter(str.isalnum, keys))
    for key in known:
        close_key(folder.state / "sets", key)
    if not known:
        return ["over which partners sums were opened is not known, nor under which key: go on "
                "under a new key of the federation alone"]
    return [f"under the key of earlier runs ({', '.join(known)}) this site takes part in no sum of "
            "a model without a record: the federation makes a new key, or this site's policy "
            "admits a further set (changed_sets)"]


def _claims(folder: SiteFolder, entries: Sequence[Entry]) -> list[str]:
    """Close the rounds whose claims are lost."""
    guard, closed = OpeningGuard(folder.state / "openings"), 0
    for run in {entry.run_id for entry in entries}:
        path = folder.notes.folder / folder_name(run)
        claims = parse_note(path.read_bytes()).claims if path.exists() else ()
        for number in claims:
            if not guard.claimed(RoundId(run, number)):
                guard.close(RoundId(run, number))
                closed += 1
    return [f"{closed} sums whose claims are gone are never opened again"] if closed else []
