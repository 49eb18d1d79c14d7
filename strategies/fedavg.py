"""Encrypted federated averaging: ask, fold each reply as it arrives, have the sum opened, step.

Trust: this code runs at the operator. It sees ciphertext, who answered, and the opened integers
of the whole cohort; it holds no key and imports nothing that could.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from conf.schema import StrategyConfig
from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.types import Accumulator, OpenedSum, OpeningClaim, Parameters, Refused, RoundId
from strategies import layout
from strategies.cohort import Cohort, TooFewUpdates
from strategies.exchange import ask, stream
from strategies.optimiser import ServerState, step

log = logging.getLogger("veilsum")
Vector = NDArray[np.float64]


class OpeningFailed(RuntimeError):
    """The opener refused the sum. The run ends: asking again would make it an oracle."""


@dataclass(frozen=True)
class RoundReport:
    """What one round gave. ``sums``: region name -> sum over the cohort (real units)."""

    round: int
    state: ServerState
    sums: Mapping[str, Vector]
    answered: tuple[str, ...]
    refused: Mapping[str, str]
    upload_bytes: float
    """Mean bytes that one partner sent."""
    seconds: Mapping[str, float]


@dataclass
class _Fold:
    """The running round: who is in, who was refused, what it cost."""

    accumulator: Accumulator
    answered: dict[str, layout.TrainReply] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    upload_bytes: int = 0
    fold_s: float = 0.0
    train_s: float = 0.0
    encrypt_s: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What both sides agreed on before the first round."""

    run: str
    layout: ControlLayout
    """Of one reply."""
    values: int
    """Opened integers of one round."""
    quorum: int
    opener: str
    timeout_s: float

    @property
    def parameters(self) -> Parameters:
        return self.layout.parameters


class EncryptedFedAvg(Strategy):
    """``Rules`` fix what is accepted; ``dequantise`` turns opened integers into sums; the mean
    update is ``sums["update"] / divisor(answered)``, a public number, never a realised count.
    ``on_round`` hears each report (tracking, checkpoints, evaluation)."""

    def __init__(
        self,
        rules: Rules,
        cohort: Cohort,
        config: StrategyConfig,
        dequantise: Callable[[NDArray[np.int64]], Mapping[str, Vector]],
        divisor: Callable[[tuple[str, ...]], float],
        on_round: Callable[[RoundReport], None],
    ) -> None:
        self.rules, self.cohort, self.config = rules, cohort, config
        self.dequantise, self.divisor, self.on_round = dequantise, divisor, on_round
        self._fold = _Fold(make_accumulator(rules.layout))

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
        """Run all rounds. ``initial_arrays`` holds one flat model (d,) as ``"model"``, and so
        does the result's. What evaluates hears ``on_round``."""
        self.summary()
        state = ServerState.start(initial_arrays["model"].numpy().astype(np.float64))
        while state.round < num_rounds:
            report = self.run_round(grid, state, state.round + 1, "train")
            state = report.state
            self.on_round(report)
        result = Result()
        result.arrays = ArrayRecord({"model": Array(state.final)})
        return result

    def run_round(self, grid: Grid, state: ServerState, number: int, kind: str) -> RoundReport:
        """One round as the protocol says. Raises TooFewUpdates or OpeningFailed."""
        began = time.perf_counter()
        self._fold = _Fold(make_accumulator(self.rules.layout, number))
        model = state.model if kind == "train" else state.final
        messages = self.configure_train(
            number, ArrayRecord({"model": Array(model)}), ConfigRecord({"kind": kind}), grid
        )
        self._aggregate(number, stream(grid, messages, self.rules.timeout_s))
        fold = self._fold
        opening = time.perf_counter()
        opened = self._open(grid, number, kind)
        open_s = time.perf_counter() - opening
        sums = self.dequantise(opened.values)
        answered = tuple(sorted(fold.answered))
        if kind == "train":
            state = step(state, sums["update"] / self.divisor(answered), self.config)
        return RoundReport(
            round=number,
            state=state,
            sums=sums,
            answered=answered,
            refused=dict(fold.refused),
            upload_bytes=fold.upload_bytes / len(fold.answered),
            seconds={
                "round": time.perf_counter() - began,
                "train": fold.train_s,
                "encrypt": fold.encrypt_s,
                "fold": fold.fold_s,
                "open": open_s,
            },
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        request = layout.TrainRequest(
            round_id=RoundId(self.rules.run, server_round),
            kind=str(config["kind"]),
            fingerprint=self.rules.parameters.fingerprint,
            model=arrays["model"].numpy().astype(np.float64),
        )
        content = layout.train_request(request)
        return ask(dict.fromkeys(self.cohort.nodes.values(), content), layout.TRAIN,
                   str(server_round))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's form of the round's fold, by the senders that the replies name."""
        self._aggregate(server_round, ((reply.metadata.src_node_id, reply) for reply in replies))
        return None, None

    def _aggregate(self, server_round: int, replies: Iterable[tuple[int, Message]]) -> None:
        """Fold each reply as the iterable yields it; refuse and name what is not acceptable.
        Raises TooFewUpdates below the quorum."""
        for node, reply in replies:
            self._take(server_round, node, reply)
        missing = set(self.cohort.nodes) - set(self._fold.answered) - set(self._fold.refused)
        self._fold.refused.update(dict.fromkeys(sorted(missing), "no answer in time"))
        for partner, reason in self._fold.refused.items():
            log.warning("round %d: %s refused: %s", server_round, partner, reason)
        if len(self._fold.answered) < self.rules.quorum:
            raise TooFewUpdates(len(self._fold.answered), self.rules.quorum, self._fold.refused)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: validation rides in the same encrypted sum as the update."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None

    def _take(self, number: int, node: int, message: Message) -> None:
        fold = self._fold
        by_node = {node: partner for partner, node in self.cohort.nodes.items()}
        sender = by_node.get(node, f"node {node}")
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
            return
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

    def _open(self, grid: Grid, number: int, kind: str) -> OpenedSum:
        members = tuple(sorted(self.cohort.index(partner) for partner in self._fold.answered))
        blocks = self._fold.accumulator.finish()
        claim = OpeningClaim(RoundId(self.rules.run, number), members, digest(blocks))
        request = layout.OpenRequest(claim, kind, self.rules.parameters.fingerprint, blocks)
        opener = self.cohort.nodes.get(self.rules.opener)
        if opener is None:
            raise OpeningFailed(f"the opener {self.rules.opener} did not join; name another one "
                                "with strategy.opener")
        content = {opener: layout.open_request(request)}
        for _, reply in stream(grid, ask(content, layout.OPEN, str(number)), self.rules.timeout_s):
            try:
                opened = layout.parse_open_reply(reply, self.rules.values)
            except Refused as error:
                raise OpeningFailed(
                    f"{self.rules.opener} did not open round {number}: {error}") from None
            if opened.partners != members:
                raise OpeningFailed(f"round {number}: the opened sum holds other partners than "
                                    "those that were folded")
            return opened
        raise OpeningFailed(f"{self.rules.opener} did not answer within "
                            f"{self.rules.timeout_s:g} s; is its client running?")
