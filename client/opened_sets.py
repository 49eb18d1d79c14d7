"""One set of partners per model: what a site remembers, over runs, against sums that differ by one.

Sums of one model over {A, B}, {A, V} and {B, V} give V's own update by subtraction, whatever runs
they belong to; and every run of a configuration begins with the same model. So of each model and
kind of round a site remembers, on its disk and under one key:

- as opener, the set over which it opened a sum: it opens no sum over another;
- as contributor, the set whose sum alone can be opened where the quorum is everybody; else who
  opens: it contributes to no other. Without that, a server would name another opener for each
  set, and each would know of one sum.

Guarantee, if no key holder colludes and nobody admits more (``admitted``): on one model all opened
sums that hold V's contribution are over one set. Argument: let S and T be two such sets.
(1) Both quorums below everybody: V contributed to one opener alone, who opens one set. (2) Both
everybody: S and T are the partners that the two configurations name; V contributed to, or opened,
one of them only. (3) S everybody, T opened by X under a lower quorum: X holds the key, so it is in
S, and remembers S, because it opened it or contributed to it; whichever of its two acts came
second was refused.

Why an opener's own contribution to everybody's sum is not remembered before it opens that: a run
that misses a partner for good ends unopened, and may begin again with a lower quorum.

What it leaves: models that are close, but not the same. The next round's model differs, and a
server that writes the configuration may make steps small, or add a column. Between rounds sets
change because partners drop out, so this rule cannot forbid it; the least quorum of a site's
policy bounds what such sums tell, and noise shares protect customers throughout. The statistics
of the naive rule in a test release do not depend on the model at all.

A repeated run over the same partners is the same set, for ever.

A file per model and kind: a JSON list of entries, each a list of partners' names. Where files were
lost, ``lost-KEY`` says so: under that key each model without a file counts as opened over a set
that nobody knows, so that this site takes part in no sum of it unless it admits one more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.schema import Config
from keyholder.refusals import AnotherSetOnThisModel
from strategies.durable import write_whole

_LOST = ["partners of which this site lost the record"]


def kept_sets(folder: Path) -> int:
    """Of how many models a set or opener is remembered. Grows, and never shrinks."""
    return sum(1 for _ in folder.glob("*.json"))


def close_key(folder: Path, key_id: str) -> None:
    """Sets of models under this key were lost. On disk when this returns."""
    write_whole(_closed(folder, key_id), b"")


def _closed(folder: Path, key_id: str) -> Path:
    return folder / f"lost-{key_id}"


@dataclass(frozen=True)
class OpenedSets:
    """Below ``folder``, under the key ``key_id``. ``admitted``: how many further sets per model
    this site allows."""

    folder: Path
    key_id: str
    admitted: int = 0

    def about(self, model: NDArray[np.float64], kind: str, role: str,
              names: Sequence[str]) -> OneSet:
        """role: "set" of partners, or "opener". The model counts as float32, as it is trained
        from."""
        with np.errstate(over="ignore"):
            weights = model.astype("<f4").tobytes()
        named = hashlib.sha256(b"veilsum opened sets 1\0" + json.dumps(
            [self.key_id, kind, role]).encode() + b"\0" + weights)
        return OneSet(self.folder / f"{named.hexdigest()}.json", tuple(sorted(names)),
                      self.admitted, _closed(self.folder, self.key_id))

    def of_run(self, model: NDArray[np.float64], kind: str, config: Config, partner: str
               ) -> OneSet:
        """What ``partner`` is bound by as a contributor to a round of ``config``."""
        partners = config.federation.partners
        if config.quorum == len(partners):
            everybody = self.about(model, kind, "set", partners)
            return replace(everybody, noted_when_opened=config.opener == partner)
        return self.about(model, kind, "opener", [config.opener])


@dataclass(frozen=True)
class OneSet:
    """A set (or opener) of one model. Used as :class:`keyholder.opening.SetRule`."""

    path: Path
    names: tuple[str, ...]
    admitted: int
    closed: Path
    noted_when_opened: bool = False

    def check(self) -> None:
        """Raises AnotherSetOnThisModel where :meth:`note` would."""
        self._known()

    def note(self) -> None:
        """On the disk when this returns. Raises AnotherSetOnThisModel."""
        if self.noted_when_opened:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._known()
            if list(self.names) not in known:
                write_whole(self.path, json.dumps([*known, list(self.names)]).encode())

    def _known(self) -> list[list[str]]:
        """What stands there, if this one is among it or may join it."""
        try:
            known: list[list[str]] = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            known = [_LOST] if self.closed.exists() else []
        except ValueError:
            raise AnotherSetOnThisModel(
                f"{self.path} is damaged, and says which partners' sum of this model was opened: "
                "put it back from a backup, or begin from another model (another seed)") from None
        if list(self.names) in known or len(known) <= self.admitted:
            return known
        raise AnotherSetOnThisModel(
            f"from this very model a sum was opened, or is, by or over {', '.join(known[0])}; now "
            f"it would be {', '.join(self.names)}, and the two, subtracted, show one partner's "
            "part. Nothing was opened. Run again with the same partners; or begin from another "
            "model (another seed, where the start is random); or let this site's policy admit it "
            "(changed_sets; a simulation takes another federation.folder). Where the record was "
            "lost, a new key of the federation ends it too")
