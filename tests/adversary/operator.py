"""An operator that talks to real sites: honest, unless a test makes it say something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.session import Session
from client.site import Site
from conf.compose import to_json
from conf.schema import Config
from encryption.accumulator import digest, make_accumulator
from encryption.parameters import choose_parameters
from encryption.types import OpenedSum, OpeningClaim, RoundId
from experiments.simulate import _node, prepared
from keyholder.keys import SharedKey
from learning.registry import shared_start
from strategies.global_model import model_digest
from strategies.layout import OpenReply, OpenRequest, TrainReply, TrainRequest
from strategies.optimiser import ServerState, step
from strategies.receipts import Receipt

Vector = np.ndarray


@dataclass(frozen=True)
class Sites:
    """Partner -> its site, on disk; one key. A run of any configuration may be begun on them."""

    config: Config
    nodes: Mapping[str, Mapping[str, object]]

    @classmethod
    def make(cls, config: Config, folder: Path) -> Sites:
        config = prepared(config, folder)
        key = SharedKey.generate(choose_parameters(
            config.encryption.name, len(config.federation.partners), config.encryption.bits))
        key.save(folder / "federation.key")
        return cls(config, {name: _node(folder, name, config.federation.sites[name])
                            for name in config.federation.partners})

    def begin(self, name: str, config: Config | None = None) -> Run:
        text = to_json(config or self.config)
        return Run(name, {partner: Session.start(text, Site.from_node_config(node))
                          for partner, node in self.nodes.items()})

    def ledger(self, partner: str) -> bytes:
        path = Path(str(self.nodes[partner]["state-path"])) / "ledger.jsonl"
        return path.read_bytes() if path.exists() else b""


@dataclass
class Run:
    """``receipts`` and ``states`` grow with each honest round; states[n]: before round n + 1."""

    name: str
    sessions: Mapping[str, Session]
    receipts: list[Receipt] = field(default_factory=list)
    states: list[ServerState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states.append(ServerState.start(shared_start(self.config)))

    @property
    def any(self) -> Session:
        return next(iter(self.sessions.values()))

    @property
    def config(self) -> Config:
        return self.any.config

    def model(self, number: int, kind: str = "train") -> Vector:
        state = self.states[number - 1]
        return state.model if kind == "train" else state.final

    def request(self, number: int, kind: str = "train", *, told: bytes | None = None,
                receipts: Iterable[Receipt] | None = None, model: bytes = b"") -> TrainRequest:
        if told is None:
            told = model_digest(self.model(number, kind))
        return TrainRequest(
            RoundId(self.name, number), kind, self.any.agreement.parameters.fingerprint, told,
            model, tuple(self.receipts[: number - 1] if receipts is None else receipts))

    def contribute(self, partner: str, number: int, kind: str = "train") -> TrainReply:
        return self.sessions[partner].contribute(self.request(number, kind))

    def collect(self, members: Sequence[str], number: int, kind: str = "train"
                ) -> tuple[bytes, ...]:
        total = make_accumulator(self.any.agreement.layout(kind), number)
        for partner in sorted(members):
            total.fold(self.contribute(partner, number, kind).blocks, self._index(partner))
        return total.finish()

    def open(self, blocks: tuple[bytes, ...], members: Sequence[str], number: int,
             kind: str = "train", **changes: object) -> OpenReply:
        claim = OpeningClaim(RoundId(self.name, number),
                             tuple(sorted(map(self._index, members))), digest(blocks))
        asked = self.request(number, kind)
        request = OpenRequest(claim, kind, asked.fingerprint, blocks, asked.model_digest,
                              receipts=asked.receipts)
        changed = OpenRequest(**{**vars(request), **changes})  # type: ignore[arg-type]
        return self.sessions[self.config.opener].open_sum(changed)

    def round(self, members: Sequence[str] | None = None) -> Receipt:
        """The next round of training."""
        number, members = len(self.states), members or list(self.sessions)
        reply = self.open(self.collect(members, number), members, number)
        self.receipts.append(Receipt(number, reply.opened.partners, reply.opened.values, reply.mac))
        opened = OpenedSum(reply.opened.values, reply.opened.partners)
        update = self.any.agreement.mean_update(opened)
        self.states.append(step(self.states[-1], update, self.config.strategy))
        return self.receipts[-1]

    def _index(self, partner: str) -> int:
        return self.config.federation.partners.index(partner)


def worked_from(monkeypatch: object, heard: Callable[[Vector], None]) -> None:
    """``heard`` gets every model from which a site computes anything."""
    import client.session as module

    for name in ("training_sums", "test_sums"):
        real = getattr(module, name)

        def watched(model: Vector, *rest: object, real: Callable[..., object] = real) -> object:
            heard(model)
            return real(model, *rest)

        monkeypatch.setattr(module, name, watched)  # type: ignore[attr-defined]
