"""A small federation on made-up purchases: three partners, real apps, real encryption."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import Message, RecordDict

from client import policy_file
from client.session import Session, _bound_run
from conf.compose import agreed_digest, from_json, to_json
from conf.schema import Config
from encryption.types import Parameters, RoundId
from experiments.local_grid import LocalGrid
from keyholder.keys import SharedKey
from keyholder.receipts import vouch
from learning.registry import shared_start
from strategies import layout
from strategies.agreement import Agreement
from strategies.exchange import ask
from strategies.global_model import model_digest
from strategies.receipts import Receipt

PARTNERS = ("east", "north", "west")
CATEGORIES = ("bread", "coffee", "milk")


def purchases(customers: int = 40, seed: int = 0) -> pl.DataFrame:
    """Regular buyers: each customer has its own pace for each category."""
    rng = np.random.default_rng(seed)
    rows = []
    for partner in PARTNERS:
        for number in range(customers):
            for category in CATEGORIES:
                gap = rng.uniform(4, 60)
                day = rng.uniform(0, gap)
                while day < 330:
                    rows.append((partner, f"{partner}-{number}", day, category))
                    day += gap * rng.uniform(0.6, 1.4)
    frame = pl.DataFrame(rows, schema=["partner", "customer", "day", "category"], orient="row")
    time = pl.datetime(2017, 1, 1) + pl.duration(minutes=(pl.col("day") * 1440).cast(pl.Int64))
    return frame.select("partner", "customer", time.alias("time"), "category")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "purchases.csv"
    purchases().write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S")
    return path


@pytest.fixture
def configure(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> (
        Callable[..., Config]):
    """configure(privacy={...}, strategy={...}) -> a checked configuration on the small table."""
    monkeypatch.chdir(tmp_path)

    def make(**groups: dict[str, object]) -> Config:
        tree: dict[str, dict[str, object]] = {
            "task": {"path": str(table), "categories": list(CATEGORIES)},
            "strategy": {"rounds": 3, "timeout_s": 30.0},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
        for group, values in groups.items():
            tree[group] = {**tree.get(group, {}), **values}
        return from_json(json.dumps(tree))

    return make


RUN = "ab" * 16


@dataclass(frozen=True)
class Clients:
    """A run's real clients, to talk to as a server would, honest or not."""

    grid: LocalGrid
    config: Config
    parameters: Parameters
    nodes: Mapping[str, Mapping[str, object]]
    key: SharedKey

    @property
    def start_digest(self) -> bytes:
        """Of the model of every round that :meth:`train` asks for."""
        return model_digest(shared_start(self.config))

    def still(self, number: int, run: str = RUN) -> tuple[Receipt, ...]:
        """Receipts, as an opener makes them, of rounds before ``number`` whose sums moved
        nothing."""
        bound = _bound_run(agreed_digest(to_json(self.config)), run)
        members = tuple(range(len(self.nodes)))
        nothing = np.zeros(Agreement.of(self.config).training.total_size, np.int64)
        return tuple(
            Receipt(earlier, members, nothing, vouch(
                self.key, RoundId(bound, earlier), "train", members, self.start_digest, nothing))
            for earlier in range(1, number))

    @property
    def size(self) -> int:
        from learning.models import get_flat
        from learning.registry import make_model

        return get_flat(make_model(self.config)).size

    def send(self, partner: str, content: RecordDict, kind: str) -> Message:
        node = next(node for node, name in self.grid.names.items() if name == partner)
        (reply,) = self.grid.send_and_receive(ask({node: content}, kind, "1"), timeout=60)
        return reply

    def request(self, number: int, *, run: str = RUN, kind: str = "train") -> layout.TrainRequest:
        """Of a round that begins with the public start still."""
        return layout.TrainRequest(RoundId(run, number), kind, self.parameters.fingerprint,
                                   self.start_digest, receipts=self.still(number, run))

    def train(self, partner: str, number: int, *, run: str = RUN, kind: str = "train") -> Message:
        return self.ask(partner, self.request(number, run=run, kind=kind))

    def train_from(self, partner: str, number: int, model: bytes, *, run: str = RUN,
                   kind: str = "train") -> Message:
        """From a sealed model."""
        return self.ask(partner, layout.TrainRequest(
            RoundId(run, number), kind, self.parameters.fingerprint, model_digest(model), model))

    def ask(self, partner: str, request: layout.TrainRequest) -> Message:
        return self.send(partner, layout.train_request(request), layout.TRAIN)


@pytest.fixture
def clients(tmp_path: Path) -> Callable[..., object]:
    """clients(config, policy, **node_config) -> context manager of :class:`Clients`. Sites with
    an epsilon_limit are real ones: they have the default policy, after the lines ``policy``."""

    @contextmanager
    def start(config: Config, policy: str = "", **extra: object) -> Iterator[Clients]:
        from client.app import app
        from encryption.parameters import choose_parameters
        from experiments.simulate import _node, prepared

        config = prepared(config, tmp_path)
        parameters = choose_parameters("shared_key", 3, config.encryption.bits)
        key = SharedKey.generate(parameters)
        key.save(tmp_path / "federation.key")
        nodes = {name: {**_node(tmp_path, name, config.federation.sites[name]),
                        **{key.replace("_", "-"): value for key, value in extra.items()}}
                 for name in config.federation.partners}
        if "epsilon_limit" in extra:
            for node in nodes.values():
                path = Path(str(node["state-path"])) / policy_file.NAME
                path.write_text(policy + policy_file.starter(config.federation.customers))
        with LocalGrid(app, nodes, {"config": to_json(config)}, workers=1) as grid:
            yield Clients(grid, config, parameters, nodes, key)

    return start


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each partner computed a reply, by kind."""
    counted: Counter[tuple[str, str]] = Counter()
    values = Session._values

    def count(self: Session, kind: str, *rest: object) -> object:
        counted[self.site.partner, kind] += 1
        return values(self, kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "_values", count)
    return counted


@pytest.fixture
def party(configure, clients, tmp_path: Path) -> Iterator[Callable[..., object]]:  # type: ignore[no-untyped-def]
    """party(limit, **groups) -> the sessions of a federation, a :class:`site_party.Party`."""
    from tests.federation.site_party import Party

    with ExitStack() as stack:
        def make(limit: float | str = 12.0, **groups: dict[str, object]) -> Party:
            groups.setdefault("strategy", {"quorum": 2, "rounds": 4, "opener": "east"})
            policy = 'least_quorum = 2\nprivacy = ["noise_shares", "none"]\n'
            federation = stack.enter_context(
                clients(configure(**groups), policy, epsilon_limit=limit))
            return Party(federation, tmp_path)

        yield make
