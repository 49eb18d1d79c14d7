"""Encrypted federated averaging: ask, fold each reply as it arrives, have the sum opened, step.

Trust: this code runs at the operator. It sees ciphertext, who answered, and the integers that
leave the opener (revealed: the whole sum; sealed: the metrics' part of it, never the update or a
model); it holds no key and imports nothing that could.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.processes import HelperLost
from encryption.shared_sum import Sums
from encryption.types import OpeningClaim, Parameters, Refused, RoundId
from strategies import layout
from strategies.cohort import Cohort, TooFewUpdates
from strategies.exchange import ask
from strategies.fold import Fold, Folded, Memory, NoMemory
from strategies.global_model import GlobalModel, model_digest
from strategies.opening import OpeningFailed, opened
from strategies.receipts import Receipt

log = logging.getLogger("veilsum")
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class RoundReport:
    """What one round gave. ``sums``: region name -> sum over the cohort (real units), without
    the update where the model is sealed; they speak of the model that the round began with."""

    round: int
    model: GlobalModel
    sums: Mapping[str, Vector]
    answered: tuple[str, ...]
    refused: Mapping[str, str]
    upload_bytes: float
    """Mean bytes that one partner sent."""
    download_bytes: float
    """Of the sealed model, or of the last round's receipt: what a request carried to a partner that
    took part in the round before."""
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Rules:
    """What both sides agreed on before the first round."""

    run: str
    layout: ControlLayout
    """Of one reply."""
    values: int
    """Integers that leave the opener in one round."""
    quorum: int
    opener: str
    timeout_s: float

    @property
    def parameters(self) -> Parameters:
        return self.layout.parameters


class EncryptedFedAvg(Strategy):
    """``Rules`` fix what is accepted; ``model`` is where the rounds begin; ``dequantise`` turns
    opened integers into sums; the mean update is ``sums["update"] / divisor(answered)``, a public
    number, never a realised count. ``on_round`` hears each report (tracking, checkpoints,
    evaluation). ``sums``: makes a round's accumulator, by default one in this process; ``memory``
    holds the sum of an interrupted round, and every receipt of the run."""

    def __init__(
        self,
        rules: Rules,
        cohort: Cohort,
        model: GlobalModel,
        dequantise: Callable[[NDArray[np.int64]], Mapping[str, Vector]],
        divisor: Callable[[tuple[str, ...]], float],
        on_round: Callable[[RoundReport], None],
        sums: Sums | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.rules, self.cohort, self.model = rules, cohort, model
        self.sums = sums or Sums(rules.layout)
        self.dequantise, self.divisor, self.on_round = dequantise, divisor, on_round
        self.memory = memory or NoMemory()
        self._fold = Fold(make_accumulator(rules.layout))

    def summary(self) -> None:
        log.info("encrypted FedAvg: %d partners, quorum %d, opener %s, suite %s",
                 len(self.cohort.nodes), self.rules.quorum, self.rules.opener,
                 self.rules.parameters.suite)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are left up to ``num_rounds``. ``initial_arrays`` is not read: the
        start came with the constructor. The result holds the final model (d,) as ``"model"``, or
        the bytes of a sealed one as ``"sealed"``. What evaluates hears ``on_round``."""
        self.summary()
        while self.model.round < num_rounds:
            report = self.run_round(grid, self.model, self.model.round + 1, "train")
            self.model = report.model
            self.on_round(report)
        result = Result()
        result.arrays = self.model.arrays()
        return result

    def run_round(self, grid: Grid, model: GlobalModel, number: int, kind: str) -> RoundReport:
        """One round as the protocol says. Raises TooFewUpdates or OpeningFailed."""
        began = time.perf_counter()
        folded = self.memory.folded(kind, number)
        # A sum that belongs to another model would fail its tags and cost the partners their key.
        if folded is None or folded.model != _name(model, kind):
            folded = self._collected(grid, model, number, kind)
        opening = time.perf_counter()
        reply = self._open(grid, model, folded)
        open_s = time.perf_counter() - opening
        sums = self.dequantise(reply.opened.values)
        if reply.mac:  # kept before anything stands on it
            self.memory.keep_receipt(Receipt(
                number, reply.opened.partners, reply.opened.values, reply.mac))
        return RoundReport(
            round=number,
            model=self._moved(model, reply, sums, folded.answered) if kind == "train" else model,
            sums=sums,
            answered=folded.answered,
            refused=folded.refused,
            upload_bytes=folded.upload_bytes,
            download_bytes=float(len(model.carried) + sum(
                len(receipt.packed()) for receipt in self.memory.receipts(number - 2, number - 1))),
            seconds={"round": time.perf_counter() - began, **folded.seconds, "open": open_s},
        )

    def _collected(self, grid: Grid, model: GlobalModel, number: int, kind: str) -> Folded:
        """Everybody's updates, summed, and kept before anybody is asked to open the sum. One that
        is lost is collected anew, in this process: partners send the very bytes again. Raises
        TooFewUpdates."""
        while True:
            self._fold = Fold(self.sums.start(number))
            try:
                self._aggregate(number, self._replies(grid, self._request(model, number, kind),
                                                      number))
                folded = self._fold.finish(kind, number, _name(model, kind))
            except HelperLost as error:
                log.warning("round %d: %s; its sum is lost, asking again", number, error)
                self.sums.close()
                continue
            self.memory.keep(folded)
            return folded

    def _moved(self, model: GlobalModel, reply: layout.OpenReply, sums: Mapping[str, Vector],
               answered: tuple[str, ...]) -> GlobalModel:
        update = sums.get("update")
        try:
            return model.after(reply, None if update is None else update / self.divisor(answered))
        except Refused as error:
            raise OpeningFailed(f"{self.rules.opener}: {error}") from None

    def _replies(self, grid: Grid, content: Callable[[str], RecordDict],
                 number: int) -> Iterator[tuple[str, Message]]:
        """Everybody's answers; for one whose node failed, as for one that is late to join, the
        round waits only as long as it lacks a quorum and can still get one."""
        fold, quorum = self._fold, self.rules.quorum

        def wanted() -> list[str]:
            out = set(fold.answered) | (set(fold.refused) - fold.failed)
            return [name for name in self.cohort.partners if name not in out]

        return self.cohort.replies(
            grid, content, layout.TRAIN, str(number), self.rules.timeout_s, wanted,
            lambda possible: not len(fold.answered) < quorum <= len(fold.answered) + len(possible))

    def _request(self, model: GlobalModel, number: int, kind: str) -> Callable[[str], RecordDict]:
        """Partner -> the round's request: the same for all, but for the receipts that it lacks."""
        request = layout.TrainRequest(
            round_id=RoundId(self.rules.run, number),
            kind=kind,
            fingerprint=self.rules.parameters.fingerprint,
            model_digest=model_digest(model.outgoing(kind)),
            model=model.carried,
        )

        @cache
        def content(held: int) -> RecordDict:
            receipts = self.memory.receipts(held, number - 1)
            return layout.train_request(replace(request, receipts=receipts))

        return lambda partner: content(self._held(partner, number))

    def _held(self, partner: str, number: int) -> int:
        """The newest round whose model the partner holds and can go on from. One that is further
        (this server went back to an older checkpoint) may have kept nothing older."""
        held = self.cohort.newest.get(partner, 0)
        return held if held < number else 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's form of the round's request; the model is this strategy's own."""
        content = self._request(self.model, server_round, str(config["kind"]))
        return ask({node: content(name) for name, node in self.cohort.nodes.items()}, layout.TRAIN,
                   str(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's form of the round's fold, by the senders that the replies name."""
        by_node = {node: partner for partner, node in self.cohort.nodes.items()}
        senders = ((reply, reply.metadata.src_node_id) for reply in replies)
        self._aggregate(server_round, ((by_node.get(node, f"node {node}"), reply)
                                       for reply, node in senders))
        return None, None

    def _aggregate(self, server_round: int, replies: Iterable[tuple[str, Message]]) -> None:
        """Fold each reply as the iterable yields it; refuse and name what is not acceptable.
        Raises TooFewUpdates below the quorum."""
        for sender, reply in replies:
            self._take(server_round, sender, reply)
        fold = self._fold
        silent = sorted(set(self.cohort.nodes) - set(fold.answered) - set(fold.refused))
        if len(fold.answered) < self.rules.quorum:
            raise TooFewUpdates(len(fold.answered), self.rules.quorum, fold.refused,
                                [*silent, *self.cohort.missing])
        lost = self.cohort.lost
        fold.refused.update({name: "its node is not connected" if name in lost
                             else "no answer in time" for name in silent})
        for partner, reason in fold.refused.items():
            log.warning("round %d goes on without %s: %s", server_round, partner, reason)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: validation rides in the same encrypted sum as the update."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None

    def _take(self, number: int, sender: str, message: Message) -> None:
        fold = self._fold
        fold.failed.discard(sender)
        try:
            reply = layout.parse_train_reply(message)
            self._check(number, sender, reply)
            began = time.perf_counter()
            fold.accumulator.fold(reply.blocks, self.cohort.index(sender))
            fold.fold_s += time.perf_counter() - began
        except Refused as error:
            # A partner whose good reply was folded stays in the sum; only the extra one is out.
            key = sender if sender not in fold.answered else f"{sender} (again)"
            fold.refused[key] = str(error)
            if self.cohort.may_answer(sender, error):
                fold.failed.add(sender)
                log.warning("round %d: %s: %s", number, sender, error)
            return
        self.cohort.newest[sender] = number - 1
        fold.refused.pop(sender, None)
        fold.answered[sender] = reply
        fold.upload_bytes += sum(len(block) for block in reply.blocks)
        fold.train_s = max(fold.train_s, reply.train_s)
        fold.encrypt_s = max(fold.encrypt_s, reply.encrypt_s)

    def _check(self, number: int, sender: str, reply: layout.TrainReply) -> None:
        if sender in self._fold.answered:
            raise Refused("it answered this round already")
        if reply.partner != sender:
            raise Refused("it speaks for another partner")
        if reply.round_id != RoundId(self.rules.run, number):
            raise Refused("its answer belongs to another round")
        if reply.fingerprint != self.rules.parameters.fingerprint:
            raise Refused("its encryption parameters differ; align the versions and the config")
        blocks = self.rules.layout.blocks
        if len(reply.blocks) != blocks:
            raise Refused(f"it sent {len(reply.blocks)} blocks instead of {blocks}")

    def _open(self, grid: Grid, model: GlobalModel, folded: Folded) -> layout.OpenReply:
        number, kind = folded.round, folded.kind
        members = tuple(sorted(self.cohort.index(partner) for partner in folded.answered))
        claim = OpeningClaim(RoundId(self.rules.run, number), members, digest(folded.blocks))
        request = layout.OpenRequest(claim, kind, self.rules.parameters.fingerprint, folded.blocks,
                                     model_digest(model.outgoing(kind)), model.state)

        def content(opener: str) -> RecordDict:
            receipts = self.memory.receipts(self._held(opener, number), number - 1)
            return layout.open_request(replace(request, receipts=receipts))

        reply = opened(grid, self.cohort, self.rules.opener, claim, content, self.rules.values,
                       self.rules.timeout_s)
        self.cohort.newest[self.rules.opener] = number - 1
        return reply


def _name(model: GlobalModel, kind: str) -> str:
    return model_digest(model.outgoing(kind)).hex()
