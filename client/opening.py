"""The run's opener at work: open one finished sum, and say what may leave this site of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.opened_sets import OneSet, OpenedSets
from client.reply_store import ReplyStore
from client.round_model import RoundModel, RoundModels
from encryption.types import OpenedSum, RoundId
from keyholder.guard import OpeningGuard
from keyholder.opening import SumOpener
from keyholder.receipts import vouch
from strategies.layout import OpenReply, OpenRequest
from strategies.optimiser import ServerState


@dataclass(frozen=True)
class RunOpener:
    """``models``: of the run. ``answers``: folder of the sealed models that were let out.
    ``begin`` is called once all that can be checked without the key has passed, and before the sum
    is claimed."""

    models: RoundModels
    guard: OpeningGuard
    sets: OpenedSets
    answers: Path
    begin: Callable[[], None]

    def answer(self, request: OpenRequest, bound: RoundId) -> OpenReply:
        """Revealed: the integers, and this opener's word for them. Sealed: step with them, and let
        out the next model as ciphertext alone. Asked again, the same bytes. Raises Refused: before
        anything is opened, for a model or state that is not the run's."""
        state, model = self.models.opened(request)
        opened = self._open(request, bound, model)
        if self.models.agreement.sealed:
            return self._sealed(request, bound, opened, state)
        if request.kind != "train":
            return OpenReply(opened)
        return OpenReply(opened, mac=vouch(self.models.key, bound, request.kind, opened.partners,
                                           model.digest, opened.values))

    def _open(self, request: OpenRequest, bound: RoundId, model: RoundModel) -> OpenedSum:
        agreement, config = self.models.agreement, self.models.config
        opener = SumOpener(self.models.key, agreement.layout(request.kind), self.guard,
                           minimum_partners=config.quorum)
        names = _names(agreement.partners, request.claim.partners)
        rule = self.sets.about(model.vector, request.kind, "set", names)
        return opener.open(replace(request.claim, round_id=bound), request.blocks,
                           model.tagged(bound), _Begins(rule, self.begin))

    def _sealed(self, request: OpenRequest, bound: RoundId, opened: OpenedSum,
                state: ServerState) -> OpenReply:
        answers = ReplyStore(self.answers)
        kept = answers.get(bound)
        reply = self.models.sealed.answer(request, opened, state)
        if kept is None:
            answers.put(bound, (reply.model, reply.state))
            return reply
        return replace(reply, model=kept[0], state=kept[1])


@dataclass(frozen=True)
class _Begins:
    """A :class:`keyholder.opening.SetRule` that begins the run where ``rule`` has passed."""

    rule: OneSet
    begin: Callable[[], None]

    def check(self) -> None:
        self.rule.check()
        self.begin()

    def note(self) -> None:
        self.rule.note()


def _names(partners: Sequence[str], members: Sequence[int]) -> list[str]:
    """Of those that there are; the opener refuses any other place by name."""
    return [partners[index] for index in members if index < len(partners)]
