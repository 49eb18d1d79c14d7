"""One partner's side of one run: its arrays, plan, key and ledger, read once, then rounds."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client import split
from client.feedback import Feedback
from client.heads import HeadStore, start_head, step_head
from client.local_round import test_sums, training_sums
from client.model_chain import check_bounds
from client.opened_sets import OneSet, OpenedSets
from client.opening import RunOpener
from client.reply_store import ReplyStore
from client.round_model import RoundModels
from client.run_key import RunKey
from client.run_notes import RunNotes
from client.site import Site, SiteError, told_seconds
from client.site_folder import HELDOUT_LEDGER, TRAIN_LEDGER, SiteFolder
from conf.compose import agreed_digest, from_json, to_json
from conf.schema import Config
from encryption.types import Refused, RoundId
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
from learning.customers import PartnerData
from learning.registry import forget_partners, head_mask, load_partner, shared_start
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from strategies.agreement import Agreement
from strategies.layout import JoinReply, OpenReply, OpenRequest, TrainReply, TrainRequest
from strategies.optimiser import ServerState

log = logging.getLogger("veilsum.client")


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
    _sealers: dict[str, Sealer] = field(default_factory=dict, repr=False)

    @classmethod
    def start(cls, config_json: str, site: Site) -> Session:
        """Read the site's key and data. The errors name their cause; they stay at the site.
        Raises PolicyRefused before it reads either, or makes anything of the size the run names.
        """
        config = _own_table(config_json)
        if site.policy is not None:
            site.policy.check(config)
        agreement = _agreement(config_json)
        if site.partner not in config.federation.partners:
            raise Refused(f"this run names {', '.join(config.federation.partners)}, and the node "
                          f"configuration says partner={site.partner!r}")
        _check_bounds(config, site)
        key = SharedKey.load(site.key_path)
        key.check_fits(agreement.parameters)
        if site.policy is not None:  # configurations come from the server: one at a time
            forget_partners()
        data = load_partner(config, site.data_path, site.partner)
        real = site.policy is not None or config.federation.name == "deployment"
        if real and not data.train.examples:
            _nothing_to_train_on(site)
        return cls(site, config, agreed_digest(config_json), agreement, data, key)

    def join(self, run: str) -> JoinReply:
        """Raises Refused, BudgetExceeded for what would stop this partner later in the run: now no
        partner has spent anything on it."""
        bound = _bound_run(self.config_digest, run)
        self._folder.check(bound, self.config)
        self._run_key.check(bound, self.key.key_id)
        if self.config.opener == self.site.partner:
            self._guard.check(RoundId(bound, 1), self.key.key_id)
        split.check(self._division, self.config)
        self._set_rule(shared_start(self.config), "train").check()
        rounds = self.config.strategy.rounds
        for kind, numbers in (("train", range(1, rounds + 1)), ("test", [rounds + 1])):
            plan = self.agreement.plan(kind)
            self._ledger(kind).check(bound, dict.fromkeys(numbers, plan.round_event()),
                                     start=plan.start_event(), failure=plan.failure)
        return JoinReply(self.site.partner, self.key.key_id, self._models(bound).newest)

    def contribute(self, request: TrainRequest) -> TrainReply:
        """The sealed contribution to one round: stored before it is sent, resent if asked
        again. Raises Refused, BudgetExceeded."""
        self._check_round(request.round_id, request.kind, request.fingerprint)
        bound = self._bind(request.round_id)
        replies = ReplyStore(self.site.state_path / "replies")
        train_s = encrypt_s = 0.0
        with replies.exclusive():
            self._folder.check(bound.run, self.config)
            self._run_key.check(bound.run, self.key.key_id)
            blocks = replies.get(bound)
            if blocks is None:
                self._answered.check(bound)
                blocks, train_s, encrypt_s = self._compute(request, bound)
                replies.put(bound, blocks)
            self._folder.answer(bound)
        return TrainReply(request.round_id, self.site.partner, request.fingerprint, blocks,
                          *(told_seconds(spent_s, self.site) for spent_s in (train_s, encrypt_s)))

    def _compute(self, request: TrainRequest,
                 bound: RoundId) -> tuple[tuple[bytes, ...], float, float]:
        """(sealed blocks, seconds of training, seconds of encryption), after the spending."""
        model = self._models(bound.run).contributed(request)
        self._check_model(request.kind, model.vector, bound)
        rule = self._set_rule(model.vector, request.kind)
        rule.check()
        self._spend(bound, request.kind)
        rule.note()
        began = time.perf_counter()
        sealer = self._sealer(request.kind)  # its processes start while this one trains
        values = self._values(request.kind, model.vector, bound)
        trained = time.perf_counter()
        blocks = sealer.seal(values, model.tagged(bound))
        return blocks, trained - began, time.perf_counter() - trained

    def open_sum(self, request: OpenRequest) -> OpenReply:
        """Open one finished sum, as the run's only opener. Asked again, it gives the same bytes.
        Raises Refused."""
        if self.config.opener != self.site.partner:
            raise NotTheOpener("this partner does not open this run's sums")
        self._check_round(request.claim.round_id, request.kind, request.fingerprint)
        bound = self._bind(request.claim.round_id)
        self._run_key.check(bound.run, self.key.key_id)
        opener = RunOpener(self._models(bound.run), self._guard, self._sets,
                           self.site.state_path / "answers",
                           lambda: self._folder.begin(RoundId(bound.run, 0), self.key.key_id))
        with self._folder.opening(bound, request.claim.partners, self._index):
            return opener.answer(request, bound)

    def _sealer(self, kind: str) -> Sealer:
        """Made once: the processes that it shares its work with stay for the next round."""
        if kind not in self._sealers:
            self._sealers[kind] = Sealer(self.key, self.agreement.layout(kind), self._index,
                                         self.site.processes)
        return self._sealers[kind]

    @property
    def _folder(self) -> SiteFolder:
        return SiteFolder(self.site.state_path)

    @property
    def _answered(self) -> RunNotes:
        return self._folder.notes

    @property
    def _run_key(self) -> RunKey:
        return RunKey(self.site.state_path / "keys")

    @property
    def _guard(self) -> OpeningGuard:
        return OpeningGuard(self.site.state_path / "openings")

    @property
    def _sets(self) -> OpenedSets:
        policy = self.site.policy
        return OpenedSets(self.site.state_path / "sets", self.key.key_id,
                          policy.changed_sets if policy else 0)

    def _set_rule(self, model: NDArray[np.float64], kind: str) -> OneSet:
        return self._sets.of_run(model, kind, self.config, self.site.partner)

    @property
    def _division(self) -> Path:
        return self.site.state_path / "split.json"

    def _ledger(self, kind: str) -> Ledger:
        """Held-out customers take part in the test release alone, so it goes into a ledger of its
        own (parallel composition)."""
        name = TRAIN_LEDGER if kind == "train" else HELDOUT_LEDGER
        return Ledger(self.site.state_path / name, self.site.epsilon_limit, self.site.delta)

    @property
    def _index(self) -> int:
        return self.config.federation.partners.index(self.site.partner)

    def _bind(self, round_id: RoundId) -> RoundId:
        """The round under a run name that commits to the configuration that was agreed on.

        Tags, claims, replies and the ledger all use it. A server that lets partners add the
        noise shares of one configuration and asks the opener under another, with a smaller
        quorum say, gets a tag mismatch instead of a sum with too little noise.
        """
        return RoundId(_bound_run(self.config_digest, round_id.run), round_id.round)

    def _check_round(self, round_id: RoundId, kind: str, fingerprint: str) -> None:
        if fingerprint != self.agreement.parameters.fingerprint:
            raise Refused("the request's encryption parameters differ from this site's")
        rounds = self.config.strategy.rounds
        allowed = round_id.round <= rounds if kind == "train" else round_id.round == rounds + 1
        self.agreement.plan(kind)
        if not allowed:
            raise Refused("the request's round is outside the run's privacy plan")

    def _spend(self, round_id: RoundId, kind: str) -> None:
        """Write the spending before the data is touched. Until all has been checked nothing is
        written: each name that a server makes up would leave files for ever."""
        split.check(self._division, self.config)
        plan, ledger = self.agreement.plan(kind), self._ledger(kind)
        event, once = plan.round_event(), plan.start_event()
        ledger.check(round_id.run, {round_id.round: event}, start=once, failure=plan.failure)
        self._folder.begin(round_id, self.key.key_id)
        split.pin(self._division, self.config)
        ledger.spend(round_id.run, round_id.round, event, start=once, failure=plan.failure)

    def _models(self, run: str) -> RoundModels:
        return RoundModels(self.config, self.agreement, self.key, run,
                           self.site.state_path / "models")

    def _check_model(self, kind: str, shared: NDArray[np.float64], bound: RoundId) -> None:
        """Raises ModelOutOfBounds, for this partner's head too; HeadDamaged."""
        head = self._head(bound)
        check_bounds(head_mask(self.config).whole(
            shared, head.model if kind == "train" else head.final))

    @property
    def _heads(self) -> HeadStore:
        return HeadStore(self.site.state_path / "heads", start_head(self.config))

    def _head(self, bound: RoundId) -> ServerState:
        has = head_mask(self.config).size
        return self._heads.before(bound, self._answered.newest(bound.run) if has else 0)

    def _values(self, kind: str, shared: NDArray[np.float64],
                bound: RoundId) -> NDArray[np.int64]:
        """What to send, and on disk before that what the round leaves of this partner's head, or
        of its update."""
        plan, mask, noise = self.agreement.plan(kind), head_mask(self.config), NoiseSource()
        heads, head = self._heads, self._head(bound)
        if kind == "test":
            model = mask.whole(shared, head.final)
            if mask.size:
                heads.put_model(bound, model, self.config)
            return plan.quantise(test_sums(model, self.data, self.config), noise)
        sums = dict(training_sums(mask.whole(shared, head.model), self.data, self.config,
                                  self.agreement, self.site.partner))
        update = sums.pop("update")
        if mask.size:
            own = plan.keep(mask.head(update), noise)
            heads.put(bound, step_head(head, bound.round, own, self.config, self.agreement,
                                       self.site.partner))
        if not self.config.encryption.feedback:
            return plan.quantise({"update": mask.shared(update), **sums}, noise)
        region = plan.region("update")
        feedback = Feedback(ReplyStore(self.site.state_path / "leftovers"), region)
        update = feedback.joined(bound, update)
        values = plan.quantise({"update": update, **sums}, noise)
        feedback.keep(bound, update, values[:region.size])  # the update comes first, unsplit
        return values


def _nothing_to_train_on(site: Site) -> None:
    """Raises SiteError in a simulation. At a real site the server chose categories, calendar and
    seed, perhaps so that one customer decides: a refusal would tell whether it is there, as often
    as the server asks, for no epsilon. So the site takes part, with its noise alone."""
    why = (f"{site.data_path} gives this run nothing to train on, under its calendar and "
           "categories; `veilsum validate-data FILE --site PARTNER` with the task settings of the "
           "run says why")
    if site.policy is None:
        raise SiteError(why)
    log.error("%s. This site takes part all the same, with its noise alone: a refusal would tell "
              "the server about its customers. Stop its client if the run is not what was agreed",
              why)


def _check_bounds(config: Config, site: Site) -> None:
    """Raises Refused for what would make a customer's privacy cost more than the site counts."""
    if site.epsilon_limit is None:  # a simulation
        return
    if config.privacy.delta > site.delta:
        raise Refused(f"the run's privacy.delta of {config.privacy.delta:g} is above the delta of "
                      f"{site.delta:g} at which this site counts its limit")
    if config.task.newcomer_partner is not None:
        # Of the k customers with the smallest hashes, who leaves makes room for another: two
        # change, where everything else is bounded by one.
        raise Refused("task.newcomer_partner is for simulations")


def read_heads(config: Config, nodes: Mapping[str, Mapping[str, object]]
               ) -> Callable[[str, int], dict[str, ServerState]]:
    """For a simulation, which holds the folders of all ``nodes``: (run, round) -> each partner's
    head after that round."""
    digest = agreed_digest(to_json(config))
    start = start_head(config)

    def read(run: str, number: int) -> dict[str, ServerState]:
        after = RoundId(_bound_run(digest, run), number + 1)
        return {name: HeadStore(Path(str(node["state-path"])) / "heads", start).before(after)
                for name, node in nodes.items()}

    return read


def _bound_run(config_digest: bytes, run: str) -> str:
    return hashlib.sha256(b"veilsum run 1\0" + config_digest + run.encode()).hexdigest()


@lru_cache(maxsize=4)
def _own_table(config_json: str) -> Config:
    """What a run's configuration says, the same for every site of a process: read once, because
    that of 200 partners takes a fifth of a second."""
    config = from_json(config_json)
    # The table of a run is the site's own; a path in the configuration is somebody else's.
    return replace(config, task=replace(config.task, path=None))


@lru_cache(maxsize=4)
def _agreement(config_json: str) -> Agreement:
    return Agreement.of(_own_table(config_json))
