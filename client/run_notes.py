"""What a site noted of each run, apart from ledger and replies: who loses one of them finds out.

A file per run below ``answered``, named as :func:`client.reply_store.folder_name` says: the SHA-256
of the second line in hex, and a line of JSON. Earlier versions wrote the newest answered round
alone, in digits.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from client.reply_store import RoundAlreadyAnswered, folder_name
from encryption.types import Refused, RoundId
from privacy.ledger_file import Mark
from strategies.durable import write_whole

_MOST_ROUND = 2**31


class NoteDamaged(Refused):
    """What the site noted of a run is not what was written."""


@dataclass(frozen=True)
class Note:
    """Of one run. answered: newest round whose reply was stored, and so may have left; begun:
    newest round that was begun, before anything was spent on it. A round that is spent and above
    ``answered`` was cut off before its reply was stored: nothing of it left.

    marks: how each ledger stood when a round was last answered. key: identifier of the run's key,
    "" where unknown. claims: rounds whose sum this site claimed as opener. sets: how many models
    :mod:`client.opened_sets` remembered when a round was last answered or a sum claimed; a file
    leaves it out where it is 0, as earlier versions do."""

    answered: int = 0
    begun: int = 0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    key: str = ""
    claims: tuple[int, ...] = ()
    sets: int = 0

    @property
    def newest(self) -> int:
        """The newest round on which anything may have been spent."""
        return max(self.answered, self.begun)

    def packed(self) -> bytes:
        fields = asdict(self)
        if not self.sets:
            del fields["sets"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def parse_note(content: bytes) -> Note:
    """Inverse of :meth:`Note.packed`; of an earlier version's file too. Raises NoteDamaged, and
    nothing else."""
    if content.isdigit() and len(content) < 10:
        return Note(int(content))
    check, _, text = content.partition(b"\n")
    try:
        if hashlib.sha256(text).hexdigest().encode() != check:
            raise ValueError("another check")
        found = json.loads(text)
        note = Note(found["answered"], found["begun"],
                    {name: Mark(**mark) for name, mark in found["marks"].items()}, found["key"],
                    tuple(found["claims"]), found.get("sets", 0))
        if note.packed() == content and all(
                type(number) is int and 0 <= number < _MOST_ROUND
                for number in (note.answered, note.begun, note.sets, *note.claims)):
            return note
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise NoteDamaged("what this site noted of a run (folder answered) is damaged")


@dataclass(frozen=True)
class RunNotes:
    folder: Path

    def read(self, run: str) -> Note:
        """An empty one before the first. Raises NoteDamaged."""
        path = self._path(run)
        return parse_note(path.read_bytes()) if path.exists() else Note()

    def all(self) -> dict[str, Note | None]:
        """File name -> note, None for a damaged one."""
        found: dict[str, Note | None] = {}
        for path in self.paths():
            try:
                found[path.name] = parse_note(path.read_bytes())
            except NoteDamaged:
                found[path.name] = None
        return found

    def paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if not path.name.startswith("."))

    def newest(self, run: str) -> int:
        """The newest answered round, 0 before the first. Raises NoteDamaged."""
        return self.read(run).answered

    def check(self, round_id: RoundId) -> None:
        """Raises RoundAlreadyAnswered for a round at or below the newest answered one."""
        if round_id.round <= self.newest(round_id.run):
            raise RoundAlreadyAnswered(
                "this round was answered before, and its bytes are gone from the state folder")

    def begin(self, round_id: RoundId, key_id: str) -> None:
        """Before the round is spent; round 0: before a sum of the run is claimed. On disk when
        this returns."""
        self._change(round_id.run, lambda note: replace(
            note, begun=max(note.begun, round_id.round), key=key_id))

    def answer(self, round_id: RoundId, marks: Callable[[], Mapping[str, Mark]],
               sets: Callable[[], int]) -> None:
        """After the reply was stored and before it is sent. On disk when this returns."""
        self._change(round_id.run, lambda note: note if round_id.round <= note.answered else
                     replace(note, answered=round_id.round, marks=marks(), sets=sets()))

    def claim(self, round_id: RoundId, sets: Callable[[], int]) -> None:
        """The round's sum was claimed here."""
        self._change(round_id.run, lambda note: replace(
            note, claims=tuple(dict.fromkeys((*note.claims, round_id.round))), sets=sets()))

    def _change(self, run: str, change: Callable[[Note], Note]) -> None:
        with self._locked():
            note = self.read(run)
            changed = change(note)
            if changed != note:
                write_whole(self._path(run), changed.packed())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time: an opening may end while another process answers a round."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, run: str) -> Path:
        return self.folder / folder_name(run)
