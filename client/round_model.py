"""The model of one round at one site, in either opening, and what tags are bound to by it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.model_chain import ModelChain, check_same
from client.sealed_run import SealedRun
from conf.schema import Config
from encryption.types import Refused, RoundId
from keyholder.keys import SharedKey
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.layout import OpenRequest, TrainRequest
from strategies.optimiser import ServerState


@dataclass(frozen=True)
class RoundModel:
    """vector (d - k,): what the round works with. digest: stands for it in tags and receipts."""

    vector: NDArray[np.float64]
    digest: bytes

    def tagged(self, bound: RoundId) -> RoundId:
        """What tags are bound to: the round, and the very model that was worked with. A server
        that makes partners work with different models gets a sum whose tags fit none of them."""
        named = hashlib.sha256(b"veilsum round from model 1\0" + bound.run.encode() + self.digest)
        return RoundId(named.hexdigest(), bound.round)


@dataclass(frozen=True)
class RoundModels:
    """Those of one run (``run``: its name at the sites), at this site. ``folder``: of what revealed
    runs keep."""

    config: Config
    agreement: Agreement
    key: SharedKey
    run: str
    folder: Path

    @property
    def newest(self) -> int:
        """The newest round whose model this site keeps; 0 of a sealed run, which needs none."""
        return 0 if self.agreement.sealed else self._chain.newest

    def contributed(self, request: TrainRequest) -> RoundModel:
        """What a contributor works with. Raises ModelNotVouched, SealBroken, and Refused for one in
        a form that the run did not agree on."""
        self._check_form(sealed=bool(request.model), revealed=bool(request.receipts))
        if self.agreement.sealed:
            digest = model_digest(request.model)
            check_same(digest, request.model_digest)
            return RoundModel(self.sealed.model(request.round_id.round, request.model), digest)
        state = self._chain.before(request.round_id.round, request.receipts)
        return self._stepped(state, request.kind, request.model_digest)

    def opened(self, request: OpenRequest) -> tuple[ServerState, RoundModel]:
        """What the opener steps from, and what the partners worked with. Raises as
        :meth:`contributed`."""
        self._check_form(sealed=bool(request.state), revealed=bool(request.receipts))
        if self.agreement.sealed:
            state = self.sealed.state(request)  # checks that the digest is this state's model's
            return state, RoundModel(_vector(state, request.kind), request.model_digest)
        state = self._chain.before(request.claim.round_id.round, request.receipts)
        return state, self._stepped(state, request.kind, request.model_digest)

    def _stepped(self, state: ServerState, kind: str, told: bytes) -> RoundModel:
        vector = _vector(state, kind)
        digest = model_digest(vector)
        check_same(digest, told)
        return RoundModel(vector, digest)

    def _check_form(self, *, sealed: bool, revealed: bool) -> None:
        if revealed if self.agreement.sealed else sealed:
            raise Refused("the model is not sent in the form that the run agreed on")

    @property
    def sealed(self) -> SealedRun:
        return SealedRun.of(self.config, self.agreement, self.key, self.run)

    @property
    def _chain(self) -> ModelChain:
        return ModelChain(self.config, self.agreement, self.key, self.run, self.folder)


def _vector(state: ServerState, kind: str) -> NDArray[np.float64]:
    return state.model if kind == "train" else state.final
