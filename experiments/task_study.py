"""How the question, the baselines and the defaults of training were chosen: on validation only.

``python -m experiments.task_study [question decay privacy newcomer]`` prints four Markdown
tables. It trains centrally, without encryption, on the bundled data; the noise is that of a
federation, drawn from a seeded generator: a study, not a release. The tuning looked at
validation customers outside of any epsilon.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from conf.schema import Config, ModelConfig, StrategyConfig, TaskConfig
from experiments.series import print_tables
from learning.auc import Auc
from learning.complete_journey import LAST_DAY
from learning.evaluation import WEIGHT_DECAY, concatenate, exact
from learning.losses import CrossEntropy
from learning.models import build_model, get_flat, set_flat
from learning.registry import make_task
from learning.task import Customers, InputShape, PartnerData
from learning.training import customer_gradients, scores, train_locally
from privacy.accounting import gaussian_mu
from privacy.clipping import clip_and_sum
from strategies.optimiser import ServerState, step

QUORUM, COLLUDERS = 6, 1
NEWCOMER_SIZES = (10, 25, 50, 100)
NEWCOMERS = ("area_2", "area_3", "area_4")
LOSS = CrossEntropy()
Datas = Mapping[str, PartnerData]


@dataclass(frozen=True)
class Setting:
    """One way to train with privacy. clip_norm: C; epsilon: None trains without noise."""

    model: str
    epsilon: float | None
    clip_norm: float
    learning_rate: float
    momentum: float = 0.9
    average_last: float = 0.5
    rounds: int = 100

    def noise(self, noise_factor: float) -> float:
        """Standard deviation on the sum of clipped gradients. 90% of the loss goes to them."""
        if self.epsilon is None:
            return 0.0
        single = 1.0 / gaussian_mu(self.epsilon, 1e-5)
        return single * math.sqrt(self.rounds / 0.9) * self.clip_norm * noise_factor


SHARES = math.sqrt(QUORUM / (QUORUM - COLLUDERS))
"""The sum's noise against what the accountant asks: COLLUDERS shares may be missing."""
FULL_NOISE = math.sqrt(QUORUM)
"""Local DP: each of the partners adds all of it."""


def question_table(seeds: Sequence[int]) -> Iterator[str]:
    """Naive, local and pooled (no privacy) for each variant of the question."""
    base = task_config()
    variants = {
        "every category of 84 days, next 28": replace(
            base, quiet_days=0, horizon_days=28, train_snapshots=spaced(28, 6)),
        "every category of 84 days, next 14": replace(base, quiet_days=0),
        "quiet for 14 days, next 14": replace(base, quiet_days=14),
        "**quiet for 28 days, next 14**": base,
        "the same, 3 training snapshots": replace(base, train_snapshots=spaced(14, 3)),
        "the same, 6 training snapshots": replace(base, train_snapshots=spaced(14, 6)),
        "the same, 15 training snapshots": replace(base, train_snapshots=spaced(14, 15)),
        "quiet for 28 days, next 28": replace(
            base, horizon_days=28, train_snapshots=spaced(28, 6)),
        "quiet for 28 of 112 days, next 14": replace(base, history_days=112),
    }
    yield from _head("question", "base rate", "naive", "local", "pooled", "pooled mlp")
    for name, config in variants.items():
        rows = []
        for seed in seeds:
            datas = load(config, seed)
            local, pooled = baselines(datas, "linear", seed)
            _, wide = baselines(datas, "mlp", seed)
            everyone = concatenate([data.validation for data in datas.values()])
            rows.append((everyone.targets[everyone.mask].mean(),
                         exact(Auc(), [(everyone, everyone.naive)]),
                         validation_auc(datas, lambda name, local=local: local[name]),
                         validation_auc(datas, lambda _, pooled=pooled: pooled),
                         validation_auc(datas, lambda _, wide=wide: wide)))
        yield _row(name, *np.mean(rows, axis=0))


def decay_table(seeds: Sequence[int]) -> Iterator[str]:
    """Weight decay of the baselines: established partners, and newcomers of some sizes."""
    yield from _head("model, decay", "local", "pooled", *map(str, NEWCOMER_SIZES))
    for model in ("linear", "mlp"):
        for decay in (0.1, 0.3, 1.0, 3.0, 10.0):
            rows = []
            for seed in seeds:
                datas = load(task_config(), seed)
                local, pooled = baselines(datas, model, seed, decay)
                rows.append((validation_auc(datas, lambda name, local=local: local[name]),
                             validation_auc(datas, lambda _, pooled=pooled: pooled),
                             *(newcomer_alone(datas, size, model, seed, decay)
                               for size in NEWCOMER_SIZES)))
            yield _row(f"{model} {decay:g}", *np.mean(rows, axis=0))


def privacy_table(seeds: Sequence[int]) -> Iterator[str]:
    """Clip norm and learning rate under noise shares, beside local DP with the same setting."""
    yield from _head("model, ε, C, learning rate", "noise shares", "full noise at each partner")
    grid = [
        *(Setting("linear", None, 1e9, rate) for rate in (0.3,)),
        *(Setting("linear", epsilon, clip, rate) for epsilon in (1, 3, 8)
          for clip in (0.25, 0.5, 1.0) for rate in (0.1, 0.3, 0.5)),
        *(Setting("mlp", epsilon, clip, rate) for epsilon in (1, 3, 8)
          for clip in (0.5, 1.0) for rate in (0.3, 0.5)),
    ]
    for setting in grid:
        rows = []
        for seed in seeds:
            datas = load(task_config(), seed)
            rows.append([validation_auc(datas, lambda _, model=model: model) for model in (
                train_privately(datas, setting, SHARES, seed),
                train_privately(datas, setting, FULL_NOISE, seed))])
        epsilon = "none" if setting.epsilon is None else f"{setting.epsilon:g}"
        yield _row(f"{setting.model}, {epsilon}, {setting.clip_norm:g}, {setting.learning_rate:g}",
                   *np.mean(rows, axis=0))


def newcomer_table(seeds: Sequence[int]) -> Iterator[str]:
    """One partner cut down to a few customers: alone without privacy, joined at ε=3."""
    clip_norm = float(_defaults("privacy", "noise_shares")["clip_norm"])
    learning_rate = float(_defaults("strategy", "fedavg")["learning_rate"])
    yield from _head("its customers", "naive", "alone, no privacy", "joined, ε=3")
    for size in NEWCOMER_SIZES:
        rows = []
        for seed in seeds:
            datas = load(task_config(), seed)
            for partner in NEWCOMERS:
                few = replace(datas[partner], train=_some(datas[partner].train, size, seed))
                setting = Setting("linear", 3, clip_norm, learning_rate)
                joined = train_privately({**datas, partner: few}, setting, SHARES, seed)
                one, own = {partner: datas[partner]}, datas[partner].validation
                rows.append((exact(Auc(), [(own, own.naive)]),
                             newcomer_alone(one, size, "linear", seed, WEIGHT_DECAY["linear"],
                                            (partner,)),
                             validation_auc(one, lambda _, joined=joined: joined)))
        yield _row(str(size), *np.mean(rows, axis=0))


def train_privately(datas: Datas, setting: Setting, noise_factor: float, seed: int) -> nn.Module:
    """A federation's arithmetic in one place: one clipped gradient per customer and round."""
    together = concatenate([data.train for data in datas.values()])
    model = build_model(ModelConfig(setting.model), _shape(datas), seed)
    random, noise = np.random.default_rng(seed), setting.noise(noise_factor)
    strategy = StrategyConfig(rounds=setting.rounds, learning_rate=setting.learning_rate,
                              momentum=setting.momentum, average_last=setting.average_last)
    state = ServerState.start(get_flat(model))
    for _ in range(setting.rounds):
        set_flat(model, state.model)
        total = sum((clip_and_sum(-rows, setting.clip_norm)
                     for rows in customer_gradients(model, together, LOSS)),
                    start=np.zeros_like(state.model))
        state = step(state, (total + noise * random.normal(size=total.shape)) / len(together),
                     strategy)
    set_flat(model, state.final)
    return model


def baselines(datas: Datas, model: str, seed: int, decay: float | None = None
              ) -> tuple[dict[str, nn.Module], nn.Module]:
    decay = WEIGHT_DECAY[model] if decay is None else decay
    start = build_model(ModelConfig(model), _shape(datas), seed)
    local = {name: train_locally(start, data.train, LOSS, decay) for name, data in datas.items()}
    together = concatenate([data.train for data in datas.values()])
    return local, train_locally(start, together, LOSS, decay)


def newcomer_alone(datas: Datas, size: int, model: str, seed: int, decay: float,
                   partners: Sequence[str] = NEWCOMERS) -> float:
    """Mean validation AUC of partners that train alone on ``size`` customers each."""
    start = build_model(ModelConfig(model), _shape(datas), seed)
    results = []
    for partner in partners:
        alone = train_locally(start, _some(datas[partner].train, size, seed), LOSS, decay)
        results.append(validation_auc({partner: datas[partner]}, lambda _, alone=alone: alone))
    return float(np.mean(results))


def validation_auc(datas: Datas, model_of: Callable[[str], nn.Module]) -> float:
    return exact(Auc(), [(data.validation, scores(model_of(name), data.validation))
                         for name, data in datas.items()])


def task_config() -> TaskConfig:
    """The defaults of conf/task/retail_repeat.yaml."""
    return TaskConfig(**_defaults("task", "retail_repeat"))


def _defaults(group: str, name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from conf.compose import CONFIG_DIR

    values = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def spaced(horizon_days: int, count: int) -> list[str]:
    """Training snapshots, one horizon apart, that end before validation's in the bundled data."""
    end = date.fromisoformat(LAST_DAY) + timedelta(days=1 - 2 * horizon_days)
    return [(end - back * timedelta(days=horizon_days)).isoformat()
            for back in range(count, 0, -1)]


def load(config: TaskConfig, seed: int) -> dict[str, PartnerData]:
    task = make_task(replace(Config(), task=config, seed=seed))
    with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
        files = task.split_by_partner(Path(folder))
        return {name: task.load(path) for name, path in files.items()}


def _some(customers: Customers, size: int, seed: int) -> Customers:
    return customers.take(np.random.default_rng(seed).permutation(len(customers))[:size])


def _shape(datas: Datas) -> InputShape:
    return InputShape(1, next(iter(datas.values())).train.features.shape[-1])


def _head(*names: str) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)


def _row(name: str, *values: float) -> str:
    return f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |"


TABLES = {"question": question_table, "decay": decay_table, "privacy": privacy_table,
          "newcomer": newcomer_table}


def main(argv: list[str]) -> int:
    tables = {name: (table.__doc__, table) for name, table in TABLES.items()}
    return print_tables("experiments.task_study", __doc__, "TABLE", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
