"""How clip norm, learning rate and the baselines' weight decay of a task and model were chosen: on
validation only.

``python -m experiments.model_study [rates] [decay] [task=... model=... KEY=VALUE]`` prints
Markdown tables of the validation metric, mean of the seeds. ``rates``: federations with noise
shares (experiments.in_the_open); ε=inf clips, without noise. ``decay``: each partner alone, all
data pooled, and a newcomer alone. The tuning looked at validation data outside of any epsilon.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from conf.schema import Config
from experiments.in_the_open import Case, composed
from experiments.series import markdown_head, markdown_row, numbers, whole_numbers
from learning.customers import concatenate
from learning.models import get_flat
from learning.registry import make_model
from learning.training import train_locally

DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0)


def main(argv: list[str]) -> int:
    import torch

    parser = argparse.ArgumentParser(prog="python -m experiments.model_study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="TABLE | KEY=VALUE",
                        help="rates, decay (default: both), and overrides as in `veilsum simulate`")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S")
    parser.add_argument("--epsilons", type=numbers, default=(1.0, 3.0, 8.0, math.inf),
                        metavar="E,E")
    parser.add_argument("--clips", type=numbers, metavar="C,C",
                        help="default: half, once and twice the task's")
    parser.add_argument("--rates", type=numbers, metavar="R,R",
                        help="default: a third, once and three times the task's")
    parser.add_argument("--decays", type=numbers, default=DECAYS, metavar="D,D")
    options = parser.parse_intermixed_args(argv)
    tables = [word for word in options.words if "=" not in word] or ["rates", "decay"]
    overrides = [word for word in options.words if "=" in word]
    if unknown := set(tables) - {"rates", "decay"}:
        parser.error(f"no such table: {', '.join(unknown)}")
    torch.set_num_threads(1)
    # A grid that is too coarse for 16 bits is a matter of encryption, not of what learns best.
    config = composed("encryption.bits=20", *overrides)
    cases = [Case.of(replace(config, seed=seed)) for seed in options.seeds]
    yield_tables = {
        "rates": lambda: rates(cases, options.clips or scaled(config.privacy.clip_norm, 2),
                               options.rates or scaled(config.strategy.learning_rate, 3),
                               options.epsilons),
        "decay": lambda: decay(cases, options.decays)}
    print(title(config, cases[0]), flush=True)
    for name in tables:
        print()
        for line in yield_tables[name]():
            print(line, flush=True)
    return 0


def title(config: Config, case: Case) -> str:
    metric, naive = case.task.metric, case.value(None, "validation")
    direction = "higher" if metric.higher_is_better else "lower"
    return (f"{config.task.name}, {config.model.name}, {get_flat(make_model(case.config)).size} "
            f"parameters: validation {metric.name}, {direction} is better; naive {naive:.4f}")


def scaled(value: float, factor: float) -> tuple[float, ...]:
    return tuple(float(f"{value * step:.2g}") for step in (1 / factor, 1, factor))


def rates(cases: Sequence[Case], clips: Sequence[float], learning_rates: Sequence[float],
          epsilons: Sequence[float]) -> Iterator[str]:
    yield markdown_head("C, learning rate", *(f"ε={epsilon:g}" for epsilon in epsilons))
    for clip, rate in itertools.product(clips, learning_rates):
        yield markdown_row(f"{clip:g}, {rate:g}", (
            np.mean([_trained(case.at(epsilon, clip, rate)) for case in cases])
            for epsilon in epsilons))


def _trained(case: Case) -> float:
    model = case.train(np.random.default_rng([case.config.seed, 1]))
    return case.value(lambda _: model, "validation")


def decay(cases: Sequence[Case], decays: Sequence[float]) -> Iterator[str]:
    """A newcomer is the largest partner with 25 customers (3 homes)."""
    customers = cases[0].config.federation.customers
    newcomer = max(customers, key=lambda name: customers[name])
    few = 3 if cases[0].config.task.name == "utility_load" else 25
    yield markdown_head("weight decay", "local", "pooled", f"{newcomer} with {few} customers")
    for one in decays:
        yield markdown_row(f"{one:g}", np.mean(
            [_baselines(case, newcomer, few, one) for case in cases], axis=0))


def _baselines(case: Case, newcomer: str, few: int, decay: float) -> tuple[float, float, float]:
    task, start = case.task, make_model(case.config)
    local = {name: train_locally(start, data.train.whole(), task.loss, decay)
             for name, data in case.datas.items()}
    together = concatenate([data.train.whole() for data in case.datas.values()])
    pooled = train_locally(start, together, task.loss, decay)
    own = case.datas[newcomer].train.whole()
    chosen = np.random.default_rng(case.config.seed).permutation(len(own))[:few]
    alone = train_locally(start, own.take(chosen), task.loss, decay)
    return (case.value(local.__getitem__, "validation"), case.value(lambda _: pooled, "validation"),
            case.value(lambda _: alone, "validation", (newcomer,)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
