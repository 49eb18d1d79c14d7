"""``python -m experiments.strategies``: strategies and heads beside the default, on the same seeds.

Trained in the open (``experiments.in_the_open``); test customers, settings chosen on validation
(``python -m experiments.strategy_study``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from experiments.series import (
    averaged_row,
    interval_text,
    smallest_partner,
    write_task_tables,
)
from learning.results import Comparison, metric_label

if TYPE_CHECKING:
    from experiments.in_the_open import Case


@dataclass(frozen=True)
class Row:
    """``overrides`` of the task's default; ``rates``: task -> further ones, chosen on validation,
    where no file in conf/tuned holds them."""

    label: str
    overrides: tuple[str, ...] = ()
    rates: Mapping[str, tuple[str, ...]] | None = None

    def of(self, task: str) -> tuple[str, ...]:
        return (*self.overrides, *(self.rates or {}).get(task, ()))


DEFAULT = Row("fedavg with momentum (the default)")
ROWS = (
    Row("fedavg without momentum", ("strategy.momentum=0",), {
        "retail_repeat": ("strategy.learning_rate=3",),
        "retail_demand": ("strategy.learning_rate=10",),
        "utility_load": ("strategy.learning_rate=0.3",),
        "retail_cross": ("strategy.learning_rate=6.7",)}),
    Row("fedadam", ("strategy=fedadam",)),
    Row("fedprox", ("strategy=fedprox",)),
    Row("own intercepts (`model.head=bias`)", ("model.head=bias",), {
        # Not for conf/tuned: there other heads would take this rate too.
        "retail_repeat": ("strategy.head_learning_rate=8.1",)}),
    Row("`model=mlp`", ("model=mlp",)),
    Row("`model=mlp`, own last layers (`model.head=last_layer`)",
        ("model=mlp", "model.head=last_layer"), {
            "retail_repeat": ("strategy.head_learning_rate=0.9",),
            "retail_demand": ("strategy.head_learning_rate=0.9",),
            "utility_load": ("strategy.head_learning_rate=0.0033",),
            "retail_cross": ("strategy.head_learning_rate=2",)}),
)
TASKS = ("retail_repeat", "retail_demand", "utility_load", "retail_cross")
PROTECTIONS = (("no differential privacy", "privacy=none"), ("ε = 3", "privacy.epsilon=3"))


def main(argv: list[str]) -> int:
    return write_task_tables(
        "strategies",
        "Train the same federation with each strategy, and with heads of the partners' own, on the "
        "same seeds, and print a Markdown table per task.",
        TASKS, table, argv)


def table(task: str, seeds: Sequence[int]) -> Iterator[str]:
    """Rows: the naive rule, each partner alone, the default, then what differs from it."""
    from experiments.in_the_open import Case, composed

    cases = [Case.of(replace(composed(f"task={task}"), seed=seed)) for seed in seeds]
    rows = (DEFAULT, *ROWS)
    found = [_compared(cases, protection, rows) for _, protection in PROTECTIONS]
    smallest = smallest_partner(found[0][0].values())
    metric = cases[0].task.metric
    better = "" if metric.higher_is_better else ", lower is better"
    columns = [f"{name}: {about}" for name, _ in PROTECTIONS
               for about in ("all", "gain over the default", f"smallest partner ({smallest})")]
    yield f"Made by `python -m experiments.strategies {task} --write docs/strategies.md`:"
    yield ""
    yield (f"| test {metric_label(metric.name, metric.unit)}{better}, mean of {len(seeds)} seeds | "
           + " | ".join(columns) + " |")
    yield "|---|" + "---|" * len(columns)
    naive = " | | ".join(interval_text(found[0][0][group].naive) for group in ("all", smallest))
    yield f"| naive rule | {naive} | | | |"
    labels = ("each partner alone, no privacy", *(row.label for row in rows))
    for label, *results in zip(labels, *found, strict=True):
        cells = " | ".join(cell for result in results for cell in (
            interval_text(result["all"].federated),
            "" if label == DEFAULT.label
            else interval_text(result["all"].gain_over_local, signed=True),
            interval_text(result[smallest].federated)))
        yield f"| {label} | {cells} |"


def _compared(cases: Sequence[Case], protection: str,
              rows: Sequence[Row]) -> list[dict[str, Comparison]]:
    """For each partner alone, then per row: group -> comparison, mean of the seeds, in which
    "local" is the default, so that gains over it are paired over the same resampled customers."""
    import numpy as np

    from experiments.in_the_open import composed
    from learning.evaluation import evaluate, fit_local

    collected: list[list[tuple[Comparison, ...]]] = [[] for _ in (None, *rows)]
    for case in cases:
        task, seed = case.config.task.name, case.config.seed
        configs = [replace(composed(f"task={task}", protection, *row.of(task)), seed=seed)
                   for row in rows]
        trained = [case.under(config).train_each(np.random.default_rng(seed))
                   for config in configs]
        alone = fit_local(case.datas, case.config.model, case.task, seed)
        default = trained[0]
        for models, found in zip((alone, *trained), collected, strict=True):
            found.append(evaluate(case.datas, models, default, next(iter(default.values())),
                                  case.task.metric, seed=seed))
    return [{group[0].partner: averaged_row(group) for group in zip(*found, strict=True)}
            for found in collected]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
