"""``python -m experiments.gains``: what each partner gains over its own model, in two periods.

Without noise, trained in the open (experiments.in_the_open) with the task's own settings. Rates
were chosen on the period before the test, over all partners together; nothing was on the test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from experiments.series import averaged_row, interval_text, write_task_tables
from learning.results import Comparison, metric_label

if TYPE_CHECKING:
    from torch import nn

    from experiments.in_the_open import Case

TASKS = ("retail_repeat", "retail_cross", "retail_demand", "utility_load")
PERIODS = {"test": "", "validation": ", the period before"}
SHARED, OWN = "", " with own intercepts"
Rows = Mapping[str, Comparison]


def main(argv: list[str]) -> int:
    return write_task_tables(
        "gains",
        "Compare the federation, without noise, with each partner's own model: by partner, in the "
        "test period and in the one before, with one shared model and with intercepts of the "
        "partners' own. Prints a Markdown table per task.",
        TASKS, table, argv)


def table(task: str, seeds: Sequence[int]) -> Iterator[str]:
    """Rows: partners, all, and for an AUC all within partners."""
    from experiments.in_the_open import Case, composed

    cases = [Case.of(replace(composed(f"task={task}", "privacy=none"), seed=seed))
             for seed in seeds]
    found = [_compared(case) for case in cases]
    metric = cases[0].task.metric
    better = "" if metric.higher_is_better else ", lower is better"
    gains = [f"gain over alone{heads}{when}" for heads in (SHARED, OWN)
             for when in PERIODS.values()]
    head = ["customers", "alone", "federated", *gains]
    yield (f"| test {metric_label(metric.name, metric.unit)}{better}, mean of {len(seeds)} seeds | "
           + " | ".join(head) + " |")
    yield "|---|--:|" + "---|" * (len(head) - 1)
    for name in found[0]["test", SHARED]:
        rows = {key: averaged_row([one[key][name] for one in found]) for key in found[0]}
        row = rows["test", SHARED]
        yield (f"| {name} | {row.customers:,} | {interval_text(row.local)} | "
               f"{interval_text(row.federated)} | " + " | ".join(
                   interval_text(rows[period, heads].gain_over_local, signed=True)
                   for heads in (SHARED, OWN) for period in PERIODS) + " |")


def _compared(case: Case) -> dict[tuple[str, str], Rows]:
    """(period, whose intercepts) -> row by name."""
    from experiments.in_the_open import composed
    from learning.evaluation import evaluate, fit_local

    seed, task = case.config.seed, case.task
    own = replace(composed(f"task={case.config.task.name}", "privacy=none", "model.head=bias"),
                  seed=seed)
    trained: dict[str, dict[str, nn.Module]] = {
        heads: one.train_each(np.random.default_rng(seed))
        for heads, one in ((SHARED, case), (OWN, case.under(own)))}
    alone = fit_local(case.datas, case.config.model, task, seed)
    found = {}
    for period in PERIODS:
        datas = {name: replace(data, test=getattr(data, period))
                 for name, data in case.datas.items()}
        for heads, models in trained.items():
            rows = evaluate(datas, models, alone, next(iter(alone.values())), task.metric, seed,
                            within=task.metric.name == "auc")
            found[period, heads] = {row.partner: row for row in rows if row.partner != "held out"}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
