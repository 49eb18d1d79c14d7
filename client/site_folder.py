"""Whether the parts of a site's state folder still agree: a lost one is noticed, not begun anew.

Each part knows of another. A ledger knows the runs and rounds that were spent; the notes
(:mod:`client.run_notes`) know how long each ledger was, which rounds were begun and answered, the
run's key, which sums were claimed, and of how many models a set of partners was remembered
(``sets``). Before anything is written a request has passed every check: its model, the bounds, the
set of partners, the division and the ledger. Then, in this order, each on disk before the next:
key, note that a round is begun, division (``split.json``), ledger, set of partners, (computing)
head and left-over part, reply, note that it is answered; then the reply is sent. Of an opening:
key, note with the key, claim, set, (opening) answer, note of the claim. So after any crash

- each round in a ledger is begun or answered by the notes;
- each ledger goes on from where the notes saw it end;
- where there is a division, a set or a claim, there is a note;
- a ledger with lines has the division beside it;
- there are as many sets as any note says, or more;
- each run that has a reply, a head or a left-over part has a note;
- a run's note has its key, its head and its left-over part beside it,

and what breaks one of these is a loss. A round that is spent and not answered was cut off by a
crash before its reply was stored: nothing of it left the site, so it is computed again, with fresh
noise, for what was charged. With its note lost that cannot be told, and it is refused.

Not noticed: a folder that is set back as a whole, ledger and notes together (SECURITY.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.heads import HeadStore, start_head
from client.opened_sets import kept_sets
from client.reply_store import ReplyStore, folder_name
from client.run_key import RunKey
from client.run_notes import Note, RunNotes
from conf.schema import Config
from encryption.types import Refused, RoundId
from keyholder.guard import OpeningGuard
from keyholder.refusals import OpeningRefused
from learning.registry import head_mask
from privacy.ledger_file import Entry, LedgerBroken, Mark, read_entries

TRAIN_LEDGER, HELDOUT_LEDGER = LEDGERS = ("ledger.jsonl", "ledger-heldout.jsonl")
RUN_FOLDERS = ("replies", "heads", "leftovers")


class SiteFolderLost(Refused):
    """The state folder lost a part."""


class NeverAnswered(OpeningRefused):
    """A sum that claims this site's own part, which this site never gave."""


@dataclass(frozen=True)
class Loss:
    """part: file or folder; what: one clause for the site's log."""

    part: str
    what: str
    damaged: bool = False


@dataclass(frozen=True)
class SiteFolder:
    state: Path

    @property
    def notes(self) -> RunNotes:
        return RunNotes(self.state / "answered")

    def marks(self) -> Mapping[str, Mark]:
        """How the ledgers stand now. Raises LedgerBroken."""
        return {name: Mark.of(read_entries(self.state / name)) for name in LEDGERS}

    def check(self, run: str, config: Config) -> None:
        """Raises LedgerBroken, SiteFolderLost or HeadDamaged where a part is lost: before a round
        of ``run`` (its name at the site) is joined or computed."""
        self._refuse(self.losses())
        self._check_claims(run)
        self._check_kept(run, config)

    def begin(self, round_id: RoundId, key_id: str) -> None:
        """Before anything else of the round is written (round 0: before a sum is claimed): its
        run's key and a note, on disk when this returns. Raises KeyChanged."""
        RunKey(self.state / "keys").pin(round_id.run, key_id)
        self.notes.begin(round_id, key_id)

    def answer(self, round_id: RoundId) -> None:
        """The round's reply is stored. Raises LedgerBroken."""
        self.notes.answer(round_id, self.marks, self.kept_sets)

    def kept_sets(self) -> int:
        return kept_sets(self.state / "sets")

    @contextmanager
    def opening(self, round_id: RoundId, members: Sequence[int], own: int) -> Iterator[None]:
        """Around the opening of a sum over ``members``; ``own``: this site's place among the
        partners. Raises SiteFolderLost where an earlier claim of the run or a set is lost, and
        NeverAnswered, both before the key is used: nobody else can have made this site's part of
        the sum, so that it opens for no key. Afterwards the claim is noted."""
        self._check_claims(round_id.run)
        self._refuse(self._lost_sets(_readable(self.notes.all())))
        if own in members and self.notes.newest(round_id.run) < round_id.round:
            raise NeverAnswered("the claim names this partner, which never answered that round")
        try:
            yield
        finally:
            if self._guard.claimed(round_id):
                self.notes.claim(round_id, self.kept_sets)

    def losses(self) -> list[Loss]:
        """Parts that do not agree with the others. The order of reading matters: another process
        of this site may be at work, and each part is written before the next."""
        ledgers, found = self._ledgers()
        stored, noted = self.stored(), self._noted()
        written = self.notes.all()
        notes = _readable(written)
        if len(notes) < len(written):
            found.append(Loss("answered", "what this site noted of a run (folder answered) is "
                              "damaged"))
        found += self._short_ledgers(ledgers, notes)
        found += _unknown_runs(ledgers, stored, notes)
        if noted and not notes and not ledgers.get(TRAIN_LEDGER, True):
            found += [Loss(name, f"{name} is gone, or empty: {noted} tells of earlier rounds")
                      for name in LEDGERS if not ledgers.get(name, True)]
        spent = any(ledgers.values()) or any(loss.part in LEDGERS for loss in found)
        if spent and not (self.state / "split.json").exists():
            found.append(Loss("split.json", "split.json is gone, which says who is held out"))
        for name, note in notes.items():
            pinned = self.state / "keys" / name
            if note.key and (not pinned.exists() or pinned.read_bytes() != note.key.encode()):
                found.append(Loss("keys", "which key a run began with is gone (folder keys)"))
        found += self._lost_sets(notes, unknown=bool(found) and not notes)
        return list(dict.fromkeys(found))

    def _refuse(self, found: Sequence[Loss]) -> None:
        """Raises LedgerBroken, SiteFolderLost where there is a loss."""
        if found:
            broken = any(loss.damaged for loss in found)
            raise (LedgerBroken if broken else SiteFolderLost)(
                "; ".join(loss.what for loss in found) + f". Put the part back, or run `veilsum "
                f"site accept-loss {self.state}`, which says what can be done without")

    def _noted(self) -> str:
        """A part that no crash leaves without a note, "" without one."""
        parts = ("split.json", "sets/*.json", "openings/claims/*.json")
        return next((part for part in parts if any(self.state.glob(part))), "")

    def _lost_sets(self, notes: Mapping[str, Note], unknown: bool = False) -> list[Loss]:
        """``unknown``: how many there were stood in notes that are lost."""
        least = max((note.sets for note in notes.values()), default=int(unknown))
        return [] if self.kept_sets() >= least else [Loss(
            "sets", "over which partners sums were opened, or are, is gone in part (folder sets)")]

    def stored(self) -> dict[str, int]:
        """Of each run that left something in a folder of its own, by the folder's name: the newest
        round of it."""
        newest: dict[str, int] = {}
        for part in RUN_FOLDERS:
            for path in (self.state / part).glob("*/[0-9]*.*"):
                if path.stem.isdecimal():
                    name = path.parent.name
                    newest[name] = max(newest.get(name, 0), int(path.stem))
        return newest

    @property
    def _guard(self) -> OpeningGuard:
        return OpeningGuard(self.state / "openings")

    def _ledgers(self) -> tuple[dict[str, tuple[Entry, ...]], list[Loss]]:
        """Those that can be read, and the others as losses."""
        found, losses = {}, []
        for name in LEDGERS:
            try:
                found[name] = read_entries(self.state / name)
            except LedgerBroken as error:
                losses.append(Loss(name, f"the ledger is damaged: {error}", damaged=True))
        return found, losses

    def _short_ledgers(self, ledgers: Mapping[str, tuple[Entry, ...]],
                       notes: Mapping[str, Note]) -> list[Loss]:
        spent, found = spent_rounds(ledgers), []
        for name, note in notes.items():
            for ledger, mark in note.marks.items():
                # Read again where it grew meanwhile.
                if ledger in ledgers and not mark.holds(ledgers[ledger]) and not mark.holds(
                        read_entries(self.state / ledger)):
                    other = len(ledgers[ledger]) >= mark.entries
                    found.append(Loss(ledger, f"the ledger is damaged: {ledger} holds other lines "
                                      "than it did" if other else f"{ledger} is gone, or lines of "
                                      f"it: it had {mark.entries} or more", damaged=other))
            if note.answered and not note.marks and len(ledgers) == len(LEDGERS) and (
                    note.answered not in spent.get(name, ())):
                found.append(Loss(TRAIN_LEDGER, f"{TRAIN_LEDGER} is gone, or lines of it: a round "
                                  "was answered that it does not hold"))
        return found

    def _check_claims(self, run: str) -> None:
        claims = self.notes.read(run).claims
        if not all(self._guard.claimed(RoundId(run, number)) for number in claims):
            raise SiteFolderLost(
                "which sums of this run were opened is gone in part (folder openings). Put it "
                f"back, or run `veilsum site accept-loss {self.state}`: none of them is opened "
                "again then")

    def _check_kept(self, run: str, config: Config) -> None:
        """What the run's last round left beside its reply."""
        last = min(self.notes.newest(run), config.strategy.rounds)
        if not last:
            return
        if head_mask(config).size:
            HeadStore(self.state / "heads", start_head(config)).before(RoundId(run, last + 1), last)
        if config.encryption.feedback and not ReplyStore(self.state / "leftovers").holds(
                RoundId(run, last)):
            raise SiteFolderLost("what rounding left over of this run's last update is gone "
                                 "(folder leftovers); put it back, or begin a new run")


def _readable(notes: Mapping[str, Note | None]) -> dict[str, Note]:
    return {name: note for name, note in notes.items() if note is not None}


def spent_rounds(ledgers: Mapping[str, Sequence[Entry]]) -> dict[str, set[int]]:
    """Rounds in the ledgers by the name of their run's files, a run's start left out."""
    rounds: dict[str, set[int]] = {}
    for entries in ledgers.values():
        for entry in entries:
            rounds.setdefault(folder_name(entry.run_id), set()).add(entry.round)
    return rounds


def _unknown_runs(ledgers: Mapping[str, Sequence[Entry]], stored: Mapping[str, int],
                  notes: Mapping[str, Note]) -> list[Loss]:
    found = []
    spent = spent_rounds(ledgers)
    for name, rounds in spent.items():
        if max(rounds) > notes.get(name, Note()).newest:
            found.append(Loss("answered", "whether a round that was spent was answered is gone "
                              "(folder answered)"))
    for name, number in stored.items():
        if name not in notes:
            found.append(Loss("answered", "what was noted of a run's answers is gone (folder "
                              "answered)"))
            if number not in spent.get(name, ()):
                found.append(Loss(TRAIN_LEDGER, f"{TRAIN_LEDGER} is gone, or lines of it: a reply "
                                  "is stored of a round that it does not hold"))
    return found
