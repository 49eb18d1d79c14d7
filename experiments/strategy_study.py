"""How the rates of the strategies and of heads were chosen: on validation only.

``python -m experiments.strategy_study [TASK ...]`` prints a Markdown table per task: the
validation metric of each setting tried at ε=3, mean of the seeds, trained in the open
(``experiments.in_the_open``): a study, not a release. Of each strategy or head one number is
searched, in steps of a factor from a start to where a step either way is worse. The tuning looked
at validation data outside of any epsilon. What a setting does not say is as the task's files in
conf/ have it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from experiments.in_the_open import Case, composed
from experiments.series import climb, print_tables, rung

TASKS = ("retail_repeat", "retail_demand", "utility_load", "retail_cross")
LOCAL, STEPS = 0.5, 5
"""Rate and steps of a customer's local training."""


@dataclass(frozen=True)
class Search:
    """``key`` is searched from ``start`` by ``factor``, with ``overrides`` of the task's
    default."""

    label: str
    overrides: tuple[str, ...]
    key: str
    start: float
    factor: float = 3.0

    def value(self, steps: int) -> float:
        return rung(self.start, self.factor, steps)

    def at(self, steps: int) -> tuple[str, ...]:
        return (*self.overrides, f"{self.key}={self.value(steps):g}")


def searches(task: str) -> Iterator[Search]:
    """All of a task, around what its default strategy uses."""
    base = composed(f"task={task}")
    rate, clip = base.strategy.learning_rate, base.privacy.clip_norm
    yield Search("fedavg, momentum=0", ("strategy.momentum=0",), "strategy.learning_rate",
                 10 * rate)
    for tau in ("0.001", "0.01"):
        yield Search(f"fedadam, adaptivity={tau}",
                     ("strategy=fedadam", f"strategy.adaptivity={tau}"),
                     "strategy.learning_rate", 0.03)
    # As far as its gradients do not turn, a customer's change is LOCAL * STEPS gradients.
    yield Search("fedprox", (
        "strategy=fedprox", f"strategy.learning_rate={rate / (LOCAL * STEPS):g}",
        "privacy.contribution=training", f"privacy.local_steps={STEPS}",
        f"privacy.local_learning_rate={LOCAL}", f"privacy.clip_norm={clip * LOCAL * STEPS:g}"),
        "strategy.proximal", 0.1, factor=10)
    for model, head in (("linear", "bias"), ("mlp", "bias"), ("mlp", "last_layer")):
        own = composed(f"task={task}", f"model={model}").strategy.learning_rate
        yield Search(f"{model}, head={head}", (f"model={model}", f"model.head={head}"),
                     "strategy.head_learning_rate", own)


def table(task: str, seeds: Sequence[int]) -> Iterator[str]:
    yield "| searched | tried, validation metric at ε=3 | chosen |\n|---|---|--:|"
    cases = [Case.of(replace(composed(f"task={task}"), seed=seed)) for seed in seeds]
    sign = 1 if cases[0].task.metric.higher_is_better else -1
    yield f"| as it is | {_value(cases, ()):.4f} | |"
    for search in searches(task):
        tried: dict[int, float] = {}

        def merit(steps: int, search: Search = search, tried: dict[int, float] = tried) -> float:
            tried[steps] = round(_value(cases, search.at(steps)), 4)  # ties end the search
            return sign * tried[steps]

        chosen = search.value(climb(merit))
        shown = ", ".join(f"{search.value(steps):g}: {tried[steps]:.4f}"
                          for steps in sorted(tried))
        yield f"| {search.label}: `{search.key}` | {shown} | {chosen:g} |"


def _value(cases: Sequence[Case], overrides: Sequence[str]) -> float:
    """The validation metric, mean of the cases."""
    def one(case: Case) -> float:
        config = composed(f"task={case.config.task.name}", "privacy.epsilon=3", *overrides)
        models = case.under(replace(config, seed=case.config.seed)).train_each(
            np.random.default_rng(case.config.seed))
        return case.value(models.__getitem__, "validation")

    return float(np.mean([one(case) for case in cases]))


def main(argv: list[str]) -> int:
    tables = {name: (name, partial(table, name)) for name in TASKS}
    return print_tables("experiments.strategy_study", __doc__, "TASK", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
