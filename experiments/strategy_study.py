"""How the rates of the strategies and of heads were chosen: on validation only.

``python -m experiments.strategy_study [TASK ...]`` prints a Markdown table per task: the
validation metric of each setting at ε=3, mean of the seeds, trained in the open
(``experiments.in_the_open``): a study, not a release. The tuning looked at validation data outside
of any epsilon. What a setting does not say is as the task's files in conf/ have it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from experiments.in_the_open import Case, composed
from experiments.series import print_tables

TASKS = ("retail_repeat", "utility_load", "retail_cross")
FACTORS = (1, 3, 10, 30)
"""Of the default strategy's learning rate, for one without momentum."""
ADAM = tuple((rate, tau) for tau in (1e-3, 1e-2) for rate in (0.003, 0.01, 0.03, 0.1))
LOCAL, STEPS = 0.5, 5
"""Rate and steps of a customer's local training."""
PROX = (0.01, 0.1, 1.0)
HEAD_FACTORS = (0.1, 0.3, 1, 3)


@dataclass(frozen=True)
class Setting:
    label: str
    overrides: tuple[str, ...]


def grid(task: str) -> Iterator[Setting]:
    """All settings of a task, around what its default strategy uses; of the largest task, whose
    partners differ most, intercepts alone."""
    base = composed(f"task={task}")
    rate, clip = base.strategy.learning_rate, base.privacy.clip_norm
    yield Setting("as it is", ())
    yield from _with_head(rate, "linear", "bias")
    if task == "retail_cross":
        return
    yield _setting("mlp", model="mlp")
    for head in ("bias", "last_layer"):
        yield from _with_head(rate, "mlp", head)
    for factor in FACTORS:
        yield _setting("fedavg", learning_rate=rate * factor, momentum=0)
    for adam, tau in ADAM:
        yield _setting("fedadam", learning_rate=adam, adaptivity=tau)
    for mu in PROX:
        # As far as its gradients do not turn, a customer's change is LOCAL * STEPS gradients.
        yield _setting("fedprox", learning_rate=rate / (LOCAL * STEPS), proximal=mu,
                       privacy={"contribution": "training", "local_steps": STEPS,
                                "local_learning_rate": LOCAL, "clip_norm": clip * LOCAL * STEPS})


def _with_head(rate: float, model: str, head: str) -> Iterator[Setting]:
    for factor in HEAD_FACTORS:
        yield _setting(f"{model}, {head}", model=model, head=head,
                       head_learning_rate=rate * factor)


def _setting(label: str, model: str = "", head: str = "",
             privacy: Mapping[str, object] | None = None, **strategy: float) -> Setting:
    chosen = [f"strategy={label}"] if label.startswith("fed") else []
    chosen += [f"model={model}"] if model else []
    chosen += [f"model.head={head}"] if head else []
    values = {f"strategy.{key}": f"{value:g}" for key, value in strategy.items()} | {
        f"privacy.{key}": f"{value:g}" if isinstance(value, float) else value
        for key, value in (privacy or {}).items()}
    pairs = [f"{key}={value}" for key, value in values.items()]
    shown = [pair.split(".", 1)[1] for pair in pairs if "contribution" not in pair]
    return Setting(", ".join([label, *shown]), (*chosen, *pairs))


def table(task: str, seeds: Sequence[int]) -> Iterator[str]:
    yield "| setting | ε=3 |\n|---|--:|"
    base = composed(f"task={task}")
    cases = [Case.of(replace(base, seed=seed)) for seed in seeds]
    for setting in grid(task):
        config = composed(f"task={task}", "privacy.epsilon=3", *setting.overrides)
        mean = np.mean([_value(case.under(replace(config, seed=case.config.seed)))
                        for case in cases])
        yield f"| {setting.label} | {mean:.4f} |"


def _value(case: Case) -> float:
    """The validation metric of one federation."""
    models = case.train_each(np.random.default_rng(case.config.seed))
    return case.value(models.__getitem__, "validation")


def main(argv: list[str]) -> int:
    tables = {name: (name, partial(table, name)) for name in TASKS}
    return print_tables("experiments.strategy_study", __doc__, "TASK", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
