"""One round's sum: while replies are folded into it, and as it waits to be opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from encryption.types import Accumulator
from strategies.layout import TrainReply
from strategies.receipts import Receipt


@dataclass(frozen=True)
class Folded:
    """A sum that may be opened. A server that forgets it between asking and stepping would ask for
    another one of the same round, which no opener opens. ``model``: digest (hex) of what
    partners worked from; ``blocks``: ciphertext; ``upload_bytes``: mean of one partner's."""

    kind: str
    round: int
    model: str
    answered: tuple[str, ...]
    refused: Mapping[str, str]
    blocks: tuple[bytes, ...]
    upload_bytes: float
    seconds: Mapping[str, float]


class Memory(Protocol):
    """Where a server keeps what it must not lose."""

    def keep(self, folded: Folded) -> None:
        """On disk when this returns."""

    def folded(self, kind: str, number: int) -> Folded | None:
        """What was kept of this round, before an interruption."""

    def keep_receipt(self, receipt: Receipt) -> None:
        """On disk when this returns."""

    def receipts(self, after: int, last: int) -> tuple[Receipt, ...]:
        """Those of rounds ``after`` + 1 to ``last``, one round after the other; those before a
        gap are left out."""


class NoMemory:
    """An interrupted run is lost; its receipts lie in this process's memory."""

    def __init__(self) -> None:
        self._receipts: dict[int, Receipt] = {}

    def keep(self, folded: Folded) -> None:
        pass

    def folded(self, kind: str, number: int) -> Folded | None:
        return None

    def keep_receipt(self, receipt: Receipt) -> None:
        self._receipts[receipt.round] = receipt

    def receipts(self, after: int, last: int) -> tuple[Receipt, ...]:
        return unbroken(map(self._receipts.get, range(last, after, -1)))


def unbroken(newest_first: Iterable[Receipt | None]) -> tuple[Receipt, ...]:
    """The receipts before the first that is missing, oldest first. A site can use no others."""
    found: list[Receipt] = []
    for receipt in newest_first:
        if receipt is None:
            break
        found.append(receipt)
    return tuple(reversed(found))


@dataclass
class Fold:
    """The running round: who is in, who was refused, what it cost."""

    accumulator: Accumulator
    answered: dict[str, TrainReply] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Those of the refused whose node failed: they may answer yet."""
    upload_bytes: int = 0
    fold_s: float = 0.0
    train_s: float = 0.0
    encrypt_s: float = 0.0

    def finish(self, kind: str, number: int, model: str) -> Folded:
        """Raises ValueError if nothing was folded."""
        blocks = self.accumulator.finish()
        return Folded(
            kind, number, model, tuple(sorted(self.answered)), dict(self.refused), blocks,
            self.upload_bytes / len(self.answered),
            {"train": self.train_s, "encrypt": self.encrypt_s, "fold": self.fold_s})
