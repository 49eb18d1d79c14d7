"""The model that a round begins with, as a site works it out itself: the server sends none.

A revealed run's model is a function of the public start and of the sums that were opened: round by
round, the opened integers are turned into a mean and :func:`strategies.optimiser.step` moves the
model along it. Whoever opened a sum vouches for it (:mod:`keyholder.receipts`), so that a site
needs the receipts alone. All of it is IEEE 754 arithmetic on single elements (add, multiply,
divide, square root; exact integers; a divisor by ``math.fsum``), each correctly rounded: equal bits
at every site and at the server.

Guarantee: whatever messages a server sends, the model that :meth:`ModelChain.before` returns is the
one that the public start and the sums opened in this run lead to, each over at least the quorum;
anything else raises, and nothing is spent. By induction over the rounds: a receipt is checked
against this site's own model of its round, its seal commits to run, round, set, model and every
integer, and an honest opener seals one sum a round (:mod:`keyholder.guard`). Not covered: a
partner that hands the server the key, or seals for it.

A state is kept as ``ROUND.model`` in a folder of the run, the two last written: SHA-256 of the
run, the round and the rest (32), then :meth:`strategies.optimiser.ServerState.packed`. One that is
lost or damaged costs a longer request, nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.reply_store import folder_name
from conf.schema import Config
from encryption.types import OpenedSum, Refused, RoundId
from keyholder.keys import SharedKey
from keyholder.receipts import vouched
from learning.registry import shared_start
from strategies.agreement import Agreement
from strategies.durable import write_whole
from strategies.global_model import model_digest
from strategies.optimiser import ServerState, step
from strategies.receipts import Receipt

log = logging.getLogger("veilsum.client")
Vector = NDArray[np.float64]
MODEL_BOUND = 1e6
"""Public: the largest absolute value of a model that a site works with. Far beyond what any task's
scaled features need, far within what float32 computes with."""
_CHECK_BYTES = 32


class ModelNotVouched(Refused):
    """The server's model is not what this run's opened sums lead to."""


class ReceiptsMissing(ModelNotVouched):
    """From what this site holds, the receipts that were sent do not lead to the round. The name is
    part of the protocol: the server then sends them all (strategies.layout.RECEIPTS_MISSING)."""


class ModelOutOfBounds(Refused):
    """A model with a value that is not finite, or beyond the public bound."""


def check_bounds(model: Vector) -> None:
    """Raises ModelOutOfBounds unless every value is a number of at most MODEL_BOUND in size."""
    if not bool((np.abs(model) <= MODEL_BOUND).all()):  # nor is NaN
        raise ModelOutOfBounds(
            f"the round's model has values that are not finite, or beyond {MODEL_BOUND:g}: the run "
            "diverged. Begin another with a smaller strategy.learning_rate; nothing was spent on "
            "this round")


def check_same(own: bytes, told: bytes) -> None:
    """Raises ModelNotVouched where the server (``told``) means another model than this site
    (``own``): digests. It is never believed; but partners that work from different models would
    make a sum whose tags fit none of them, and cost the federation its key."""
    if own != told:
        raise ModelNotVouched(
            "the server means another model than the opened sums of this run lead to here: its "
            "checkpoints are another run's, its version of the packages differs from this site's, "
            "or it cheats. Nothing was spent on this round")


@dataclass(frozen=True)
class ModelChain:
    """``run``: its name at the sites, which commits to ``config``. ``folder``: of all runs."""

    config: Config
    agreement: Agreement
    key: SharedKey
    run: str
    folder: Path

    @property
    def newest(self) -> int:
        """The newest round whose model is kept here and can be read; 0 for the public start."""
        return self._kept(self.config.strategy.rounds).round

    def before(self, number: int, receipts: Sequence[Receipt]) -> ServerState:
        """What round ``number`` begins with, along ``receipts`` (in order) where this site has not
        stepped yet; kept, on the disk, when this returns. Raises ModelNotVouched,
        ReceiptsMissing."""
        state = begun = self._kept(number - 1)
        for receipt in receipts:
            if state.round < receipt.round < number:
                state = self._stepped(state, receipt)
        if state.round != number - 1:
            raise ReceiptsMissing(
                f"the server did not send the receipts from round {state.round + 1} to "
                f"{number - 1}, which lead to this round's model. It keeps them beside its "
                "checkpoints; nothing was spent on this round")
        if state is not begun:
            self._keep(state, begun.round)
        return state

    def _stepped(self, state: ServerState, receipt: Receipt) -> ServerState:
        if receipt.round != state.round + 1:
            raise ReceiptsMissing(f"the receipt of round {state.round + 1} is missing")
        partners, size = len(self.agreement.partners), self.agreement.training.total_size
        if not self.config.quorum <= len(receipt.members) or receipt.members[-1] >= partners:
            raise ModelNotVouched("a receipt's set is below the quorum, or not of these partners")
        true = receipt.integers.shape == (size,) and vouched(
            receipt.mac, self.key, RoundId(self.run, receipt.round), "train", receipt.members,
            model_digest(state.model), receipt.integers)
        if not true:
            raise ModelNotVouched(
                f"the receipt of round {receipt.round} is not its opener's: of another run, round, "
                "set, model or configuration, or changed on its way. Nothing was spent")
        update = self.agreement.mean_update(OpenedSum(receipt.integers, receipt.members))
        with np.errstate(over="ignore", invalid="ignore"):  # check_bounds refuses what it leads to
            return step(state, update, self.config.strategy)

    def _kept(self, most: int) -> ServerState:
        """The newest that can be read, of round ``most`` at most; else the public start."""
        rounds = [int(path.stem) for path in self._place.glob("[0-9]*.model")
                  if path.stem.isdecimal() and 0 < int(path.stem) <= most]
        for number in sorted(rounds, reverse=True):
            state = self._read(number)
            if state is not None:
                return state
        return ServerState.start(shared_start(self.config))

    def _read(self, number: int) -> ServerState | None:
        path = self._path(number)
        try:
            stored = path.read_bytes()
            if stored[:_CHECK_BYTES] == self._check(number, stored[_CHECK_BYTES:]):
                return ServerState.unpacked(stored[_CHECK_BYTES:])
        except (OSError, ValueError, struct.error):
            pass
        log.warning("%s cannot be read; the server is asked for the receipts again", path)
        return None

    def _keep(self, state: ServerState, begun: int) -> None:
        content = state.packed()
        write_whole(self._path(state.round), self._check(state.round, content) + content)
        for path in self._place.glob("*.model"):
            if path not in (self._path(state.round), self._path(begun)):
                path.unlink(missing_ok=True)

    def _check(self, number: int, content: bytes) -> bytes:
        about = f"veilsum kept model 1 {self.run} {number}\0".encode()
        return hashlib.sha256(about + content).digest()

    @property
    def _place(self) -> Path:
        return self.folder / folder_name(self.run)

    def _path(self, number: int) -> Path:
        return self._place / f"{number:09d}.model"
