"""How clip norm and learning rate of two retail tasks were chosen: on validation only.

``python -m experiments.retail_study [retail_cross retail_demand]`` prints a Markdown table per
task: its validation metric beside the naive rule's and each partner's own model's. It trains
centrally, without encryption, with the arithmetic and the noise of a federation under noise
shares, drawn from a seeded generator: a study, not a release. The tuning looked at validation
data outside of any epsilon.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from torch import nn

from conf.compose import CONFIG_DIR
from conf.schema import Config, ModelConfig, StrategyConfig, TaskConfig
from experiments.series import print_tables
from learning.evaluation import exact, fit_baselines
from learning.models import build_model, get_flat, set_flat
from learning.registry import make_task
from learning.task import PartnerData, Task
from learning.training import customer_gradients, scores
from privacy.accounting import gaussian_mu
from privacy.clipping import clip_and_sum
from strategies.optimiser import ServerState, step

ROUNDS, COLLUDERS, METRICS_SHARE = 100, 1, 0.1
EPSILONS = (1.0, 3.0, 8.0, None)
GRID: Mapping[str, Sequence[tuple[float, float]]] = {
    "retail_cross": [(clip, rate) for clip in (0.5, 1.0, 2.0) for rate in (1.0, 2.0)],
    "retail_demand": [(clip, rate) for clip in (0.01, 0.02, 0.05) for rate in (0.3, 1.0, 3.0)],
}
"""Pairs of clip norm and learning rate."""


@dataclass(frozen=True)
class Case:
    """The customers of one seed."""

    task: Task
    datas: Mapping[str, PartnerData]

    @classmethod
    def of(cls, name: str, seed: int) -> Case:
        """The defaults of conf/task."""
        values = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "task" / f"{name}.yaml"))
        task = make_task(Config(task=TaskConfig(**values), seed=seed))  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
            files = task.split_by_partner(Path(folder))
            return cls(task, {name: task.load(path) for name, path in files.items()})

    def value(self, model_of: Callable[[str], nn.Module] | None) -> float:
        """Validation metric of each partner's model; of the naive rule without one."""
        return exact(self.task.metric, [
            (data.validation, data.validation.naive if model_of is None
             else scores(model_of(name), data.validation)) for name, data in self.datas.items()])


def table(name: str, seeds: Sequence[int]) -> Iterator[str]:
    cases = [Case.of(name, seed) for seed in seeds]
    rows = []
    for case in cases:
        local, pooled = fit_baselines(case.datas, ModelConfig(), case.task, 0)
        rows.append((case.value(None), case.value(local.__getitem__),
                     case.value(lambda _, one=pooled: one)))
    naive, alone, together = np.mean(rows, axis=0)
    yield (f"Validation {cases[0].task.metric.name}: naive {naive:.4f}, each partner alone "
           f"{alone:.4f}, pooled {together:.4f}\n")
    yield "| C, learning rate | ε=1 | ε=3 | ε=8 | no noise |\n|---|---|---|---|---|"
    for clip, rate in GRID[name]:
        means = []
        for epsilon in EPSILONS:
            trained = [train(case, clip, rate, epsilon, seed)
                       for seed, case in zip(seeds, cases, strict=True)]
            means.append(np.mean([case.value(lambda _, one=one: one)
                                  for case, one in zip(cases, trained, strict=True)]))
        yield f"| {clip:g}, {rate:g} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |"


def train(case: Case, clip: float, rate: float, epsilon: float | None, seed: int) -> nn.Module:
    """A federation's arithmetic in one place: one clipped gradient per customer and round."""
    model, random = build_model(ModelConfig(), case.task.shape, 0), np.random.default_rng(seed)
    partners = len(case.datas)
    noise = 0.0 if epsilon is None else clip / gaussian_mu(epsilon, 1e-5) * math.sqrt(
        ROUNDS / (1 - METRICS_SHARE) * partners / (partners - COLLUDERS))
    strategy = StrategyConfig(rounds=ROUNDS, learning_rate=rate)
    customers = sum(len(data.train) for data in case.datas.values())
    state = ServerState.start(get_flat(model))
    for _ in range(ROUNDS):
        set_flat(model, state.model)
        total = noise * random.normal(size=state.model.shape)
        for data in case.datas.values():
            for rows in customer_gradients(model, data.train, case.task.loss):
                total += clip_and_sum(-rows, clip)
        state = step(state, total / customers, strategy)
    set_flat(model, state.final)
    return model


def main(argv: list[str]) -> int:
    tables = {name: (name, partial(table, name)) for name in GRID}
    return print_tables("experiments.retail_study", __doc__, "TASK", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
