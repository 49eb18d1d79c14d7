"""Rounds of several suites' federations in turns, in one process."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from client.app import app as client_app
from conf.compose import to_json
from experiments.benchmarks.round.stopwatch import Stopwatch
from experiments.benchmarks.round.workload import Workload, configuration
from experiments.local_grid import LocalGrid
from keyholder.keys import SharedKey
from learning import registry
from learning.models import get_flat
from learning.registry import make_model
from strategies.agreement import Agreement
from strategies.cohort import join
from strategies.fedavg import EncryptedFedAvg, Rules
from strategies.global_model import GlobalModel, RevealedModel
from strategies.optimiser import ServerState

RUN = "benchmark"


@dataclass
class Times:
    """Of one suite's rounds: wall_s; parts: label -> processor seconds, a round each;
    upload_bytes: of one client."""

    wall_s: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    upload_bytes: float = 0.0
    parameters: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    def part_s(self, label: str) -> float:
        """Median processor seconds."""
        return statistics.median(part.get(label, 0.0) for part in self.parts)


@dataclass
class Federation:
    """One suite's server side, ready for its next round."""

    grid: LocalGrid
    strategy: EncryptedFedAvg
    model: GlobalModel
    number: int = 0

    def round(self) -> float:
        """Run the next round through the real server, grid and clients; mean bytes sent."""
        self.grid.set_run(self.grid.run)
        self.number += 1
        report = self.strategy.run_round(self.grid, self.model, self.number, "train")
        self.model = report.model
        return report.upload_bytes


def measure(suites: Sequence[str], repeats: int, bits: int, folder: Path) -> dict[str, Times]:
    """One warm-up round of each suite, then ``repeats`` of each in turns."""
    times = {suite: Times() for suite in suites}
    with ExitStack() as stack:
        stack.enter_context(patch.dict(registry.TASKS, {Workload.name: Workload}))
        ready = {suite: stack.enter_context(_federation(suite, bits, repeats + 1, folder / suite))
                 for suite in suites}
        for repeat in range(repeats + 1):
            # Every suite is first, second and last in turn.
            for suite in (*suites[repeat % len(suites):], *suites[: repeat % len(suites)]):
                with Stopwatch().running() as seconds:
                    began = time.perf_counter()
                    sent = ready[suite].round()
                    wall = time.perf_counter() - began
                print(f"{suite}, round {repeat} of {repeats}: {wall:.1f} s", file=sys.stderr)
                found = times[suite]
                found.upload_bytes = sent
                found.parameters = ready[suite].model.outgoing("train").size
                if repeat:
                    found.wall_s.append(wall)
                    found.parts.append(dict(seconds))
    return times


@contextmanager
def _federation(suite: str, bits: int, rounds: int, folder: Path) -> Iterator[Federation]:
    folder.mkdir()
    config = configuration(suite, bits, rounds, folder)
    agreement = Agreement.of(config)
    SharedKey.generate(agreement.parameters).save(folder / "key")
    nodes = {name: {"partner": name, "data-path": path, "key-path": str(folder / "key"),
                    "state-path": str(folder / "state" / name), "epsilon-limit": "unlimited"}
             for name, path in config.federation.sites.items()}
    for node in nodes.values():
        Path(node["state-path"]).mkdir(parents=True)
    with LocalGrid(client_app, nodes, {"config": to_json(config)}) as grid:
        cohort = join(grid, agreement.partners, config.quorum, RUN,
                      agreement.parameters.fingerprint, config.strategy.timeout_s)
        rules = Rules(RUN, agreement.layout("train"), agreement.leaving_size("train"),
                      config.quorum, config.opener, config.strategy.timeout_s)
        model = RevealedModel(ServerState.start(get_flat(make_model(config))), config.strategy)
        strategy = EncryptedFedAvg(
            rules, cohort, model, lambda left: agreement.dequantise("train", left),
            agreement.divisor, lambda report: None)
        yield Federation(grid, strategy, model)
