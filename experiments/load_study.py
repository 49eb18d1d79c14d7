"""How the load task's loss, baselines and defaults of training were chosen: on validation only.

``python -m experiments.load_study [baselines privacy]`` prints Markdown tables of the validation
MAE (kWh) over the real homes. It trains centrally, without encryption; the noise is that of a
federation, drawn from a seeded generator: a study, not a release. The tuning looked at
validation days outside of any epsilon.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from conf.schema import Config, ModelConfig, StrategyConfig, TaskConfig
from experiments.series import print_tables
from learning.evaluation import exact
from learning.losses import Huber, Loss
from learning.models import build_model, get_flat, set_flat
from learning.registry import make_task
from learning.task import PartnerData, Task, concatenate
from learning.training import customer_gradients, scores, train_locally
from learning.utility_load import UtilityLoad
from privacy.accounting import gaussian_mu
from privacy.clipping import clip_and_sum
from strategies.optimiser import ServerState, step

PARTNERS, COLLUDERS, ROUNDS, METRICS_SHARE = 4, 1, 100, 0.1


@dataclass(frozen=True)
class Case:
    """The homes of one seed."""

    task: Task
    datas: dict[str, PartnerData]

    @classmethod
    def of(cls, seed: int, **settings: object) -> Case:
        config = UtilityLoad.prepare(
            TaskConfig(name="utility_load", **settings))  # type: ignore[arg-type]
        task = make_task(Config(task=config, seed=seed))
        with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
            files = task.split_by_partner(Path(folder))
            return cls(task, {name: task.load(path) for name, path in files.items()})

    def error(self, model_of: Callable[[str], nn.Module], partners: Sequence[str] = ()) -> float:
        """Validation MAE of each partner's model."""
        parts = [(self.datas[name].validation, scores(model_of(name), self.datas[name].validation))
                 for name in partners or self.datas]
        return exact(self.task.metric, parts)


def baselines_table(seeds: Sequence[int]) -> Iterator[str]:
    """Bend of the Huber loss and weight decay: each partner alone, all pooled, and a newcomer
    with 3 homes and 8 weeks."""
    yield "| model, bend, decay | local | pooled | newcomer alone |\n|---|---|---|---|"
    cases = [(Case.of(seed), Case.of(seed, newcomer_partner="CA", newcomer_customers=3))
             for seed in seeds]
    for model in ("linear", "mlp"):
        for bend in (0.05, 0.1, 0.25, 1.0):
            for decay in (0.03, 0.1, 0.3, 1.0):
                rows = [_baselines(*case, model, Huber(bend), decay) for case in cases]
                cells = " | ".join(f"{value:.4f}" for value in np.mean(rows, axis=0))
                yield f"| {model}, {bend:g}, {decay:g} | {cells} |"


def _baselines(case: Case, newcomer: Case, model: str, loss: Loss,
               decay: float) -> tuple[float, float, float]:
    start = build_model(ModelConfig(model), case.task.shape, 0)
    local = {name: train_locally(start, data.train, loss, decay)
             for name, data in case.datas.items()}
    together = concatenate([data.train for data in case.datas.values()])
    pooled = train_locally(start, together, loss, decay)
    alone = train_locally(start, newcomer.datas["CA"].train, loss, decay)
    return (case.error(lambda name: local[name]), case.error(lambda _: pooled),
            case.error(lambda _: alone, ("CA",)))


def privacy_table(seeds: Sequence[int]) -> Iterator[str]:
    """Clip norm and learning rate of the federation, with noise shares."""
    yield "| model, C, learning rate | ε=1 | ε=3 | ε=8 | no noise |\n|---|---|---|---|---|"
    cases = [Case.of(seed) for seed in seeds]
    for model in ("linear", "mlp"):
        for clip in (0.05, 0.1, 0.25):
            for rate in (0.03, 0.1, 0.3):
                values = []
                for epsilon in (1.0, 3.0, 8.0, None):
                    trained = [(case, _train(case, model, clip, rate, epsilon, seed))
                               for seed, case in enumerate(cases)]
                    values.append(np.mean([case.error(lambda _, one=one: one)
                                           for case, one in trained]))
                cells = " | ".join(f"{value:.4f}" for value in values)
                yield f"| {model}, {clip:g}, {rate:g} | {cells} |"


def _train(case: Case, name: str, clip: float, rate: float, epsilon: float | None,
           seed: int) -> nn.Module:
    """A federation's arithmetic in one place: one clipped gradient per customer and round."""
    together = concatenate([data.train for data in case.datas.values()])
    model, random = build_model(ModelConfig(name), case.task.shape, 0), np.random.default_rng(seed)
    noise = 0.0 if epsilon is None else clip / gaussian_mu(epsilon, 1e-5) * math.sqrt(
        ROUNDS / (1 - METRICS_SHARE) * PARTNERS / (PARTNERS - COLLUDERS))
    strategy = StrategyConfig(rounds=ROUNDS, learning_rate=rate)
    state = ServerState.start(get_flat(model))
    for _ in range(ROUNDS):
        set_flat(model, state.model)
        total = sum((clip_and_sum(-rows, clip)
                     for rows in customer_gradients(model, together, case.task.loss)),
                    start=np.zeros_like(state.model))
        state = step(state, (total + noise * random.normal(size=total.shape)) / len(together),
                     strategy)
    set_flat(model, state.final)
    return model


TABLES = {"baselines": baselines_table, "privacy": privacy_table}


def main(argv: list[str]) -> int:
    tables = {name: (table.__doc__, table) for name, table in TABLES.items()}
    return print_tables("experiments.load_study", __doc__, "TABLE", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
