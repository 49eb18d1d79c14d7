"""One partner's side of one run: its arrays, plan, key and ledger, read once, then rounds."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.local_round import test_sums, training_sums
from client.reply_store import ReplyStore
from client.site import Site
from client.split import pin
from conf.compose import from_json
from conf.schema import Config
from encryption.types import OpenedSum, Refused, RoundId
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer
from learning.registry import load_partner
from learning.task import PartnerData
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from strategies.agreement import Agreement
from strategies.layout import JoinReply, OpenRequest, TrainReply, TrainRequest


class NotTheOpener(Refused):
    """The run names another partner as its opener; only one may ever open a run's sums."""


@dataclass(frozen=True)
class Session:
    """``lock`` lets one message of this partner work at a time: a ledger entry, its reply and
    its opening belong together."""

    site: Site
    config: Config
    config_digest: bytes
    agreement: Agreement
    data: PartnerData
    key: SharedKey
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def start(cls, config_json: str, site: Site) -> Session:
        """Read the site's key and data. The errors name their cause; they stay at the site."""
        config = from_json(config_json)
        # The table of a run is the site's own; a path in the configuration is somebody else's.
        config = replace(config, task=replace(config.task, path=None))
        if site.partner not in config.federation.partners:
            raise Refused("this run does not name this partner")
        agreement = Agreement.of(config)
        key = SharedKey.load(site.key_path)
        key.check_fits(agreement.parameters)
        digest = hashlib.sha256(config_json.encode()).digest()
        return cls(site, config, digest, agreement, load_partner(config, site.data_path), key)

    def join(self) -> JoinReply:
        return JoinReply(self.site.partner, self.key.key_id)

    def contribute(self, request: TrainRequest) -> TrainReply:
        """The sealed contribution to one round: stored before it is sent, resent if asked
        again. Raises Refused, BudgetExceeded."""
        self._check_round(request.round_id, request.kind, request.fingerprint)
        bound = self._bind(request.round_id)
        replies = ReplyStore(self.site.state_path / "replies")
        blocks = replies.get(bound)
        train_s = encrypt_s = 0.0
        if blocks is None:
            self._spend(bound, request.kind)
            began = time.perf_counter()
            values = self._values(request)
            trained = time.perf_counter()
            sealer = Sealer(self.key, self.agreement.layout(request.kind), self._index)
            blocks = sealer.seal(values, bound)
            train_s, encrypt_s = trained - began, time.perf_counter() - trained
            replies.put(bound, blocks)
        return TrainReply(request.round_id, self.site.partner, request.fingerprint, blocks,
                          train_s, encrypt_s)

    def open_sum(self, request: OpenRequest) -> OpenedSum:
        """Open one finished sum, as the run's only opener. Raises Refused."""
        if self.config.opener != self.site.partner:
            raise NotTheOpener("this partner does not open this run's sums")
        self._check_round(request.claim.round_id, request.kind, request.fingerprint)
        opener = SumOpener(self.key, self.agreement.layout(request.kind),
                           OpeningGuard(self.site.state_path / "openings"),
                           minimum_partners=self.config.quorum)
        claim = replace(request.claim, round_id=self._bind(request.claim.round_id))
        return opener.open(claim, request.blocks)

    @property
    def _index(self) -> int:
        return self.config.federation.partners.index(self.site.partner)

    def _bind(self, round_id: RoundId) -> RoundId:
        """The round under a run name that commits to the whole configuration.

        Tags, claims, replies and the ledger all use it. A server that lets partners add the
        noise shares of one configuration and asks the opener under another, with a smaller
        quorum say, gets a tag mismatch instead of a sum with too little noise.
        """
        bound = hashlib.sha256(b"veilsum run 1\0" + self.config_digest + round_id.run.encode())
        return RoundId(bound.hexdigest(), round_id.round)

    def _check_round(self, round_id: RoundId, kind: str, fingerprint: str) -> None:
        if fingerprint != self.agreement.parameters.fingerprint:
            raise Refused("the request's encryption parameters differ from this site's")
        rounds = self.config.strategy.rounds
        allowed = round_id.round <= rounds if kind == "train" else round_id.round == rounds + 1
        self.agreement.plan(kind)
        if not allowed:
            raise Refused("the request's round is outside the run's privacy plan")

    def _spend(self, round_id: RoundId, kind: str) -> None:
        """Write the spending before the data is touched. Held-out customers take part in the
        test release alone, so it goes into a ledger of its own (parallel composition)."""
        pin(self.site.state_path / "split.json", self.config)
        plan = self.agreement.plan(kind)
        name = "ledger.jsonl" if kind == "train" else "ledger-heldout.jsonl"
        ledger = Ledger(self.site.state_path / name, self.site.epsilon_limit,
                        self.config.privacy.delta)
        ledger.spend(round_id.run, round_id.round, plan.round_event(), start=plan.start_event())

    def _values(self, request: TrainRequest) -> NDArray[np.int64]:
        plan = self.agreement.plan(request.kind)
        sums: Mapping[str, NDArray[np.float64]]
        if request.kind == "train":
            sums = training_sums(
                request.model, self.data, self.config, self.agreement, self.site.partner)
        else:
            sums = test_sums(request.model, self.data, self.config)
        return plan.quantise(sums, NoiseSource())
