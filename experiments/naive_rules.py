"""``python -m experiments.naive_rules``: each task's naive rule beside other rules without fitted
numbers. Gains over a naive rule are worth what the rule is worth.

The other rules are computed from what a model is given (features, and the week before).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.series import markdown_head, markdown_row, write_task_tables
from learning.customers import Customers, InputShape
from learning.results import metric_label

if TYPE_CHECKING:
    from experiments.in_the_open import Case

Rule = Callable[[Customers, InputShape], NDArray[np.floating]]
"""Customers -> (n, e, o) scores, or predictions in the unit of the targets."""
_HISTORY_DAYS = 84


def main(argv: list[str]) -> int:
    return write_task_tables(
        "naive_rules",
        "Compare the naive rule of a task with others, on validation and test. Prints a Markdown "
        "table per task.", tuple(RULES), table, argv)


def table(task: str, seeds: Sequence[int]) -> Iterator[str]:
    from experiments.in_the_open import Case, composed

    # A model that reads the history, so that the arrays hold it.
    cases = [Case.of(replace(composed(f"task={task}", "model=tcn"), seed=seed)) for seed in seeds]
    metric = cases[0].task.metric
    direction = "higher" if metric.higher_is_better else "lower"
    yield from markdown_head(f"{metric_label(metric.name, metric.unit)}, {direction} is better, "
                             f"mean of {len(seeds)} seeds", "validation", "test").split("\n")
    for name, rule in ((f"**{cases[0].task.naive_rule}**", _own), *RULES[task].items()):
        yield markdown_row(name, np.mean([_values(case, rule) for case in cases], axis=0))


def _values(case: Case, rule: Rule) -> list[float]:
    from learning.evaluation import exact

    parts = ([getattr(data, name).whole() for data in case.datas.values()]
             for name in ("validation", "test"))
    return [exact(case.task.metric, [(customers, rule(customers, case.task.shape))
                                     for customers in part]) for part in parts]


def _own(customers: Customers, _: InputShape) -> NDArray[np.floating]:
    return customers.naive


def _frequency(customers: Customers, _: InputShape) -> NDArray[np.floating]:
    """Days bought: learning.features gives 1.5 (log(days) - 0.4)."""
    return customers.features[..., :1]


def _last(customers: Customers) -> NDArray[np.floating]:
    """Days since the last purchase: learning.features gives 1 - 4 (sqrt(last / 84) - 0.53)."""
    return _HISTORY_DAYS * ((1 - customers.features[..., 1:2]) / 4 + 0.53) ** 2


def _without_recency(customers: Customers, _: InputShape) -> NDArray[np.floating]:
    """The naive rule is log(days x activity / last)."""
    return customers.naive + np.log(np.maximum(_last(customers), 1))


def _of_the_week(reduce: Callable[..., NDArray[np.floating]]) -> Rule:
    """Over the seven days before at each hour, which the history holds as load / scale - 1."""
    def rule(customers: Customers, shape: InputShape) -> NDArray[np.floating]:
        week = shape.history(customers.features)[..., 0, :, :]  # (n, e, days, hours)
        assert customers.scale is not None
        return customers.scale[..., None] * (1 + reduce(week))
    return rule


RULES: Mapping[str, Mapping[str, Rule]] = {
    "retail_repeat": {
        "days bought × activity": _without_recency,
        "days bought": _frequency,
        "shortest time since the last purchase": lambda customers, _: -_last(customers)},
    "utility_load": {
        "median of the last seven days at each hour": _of_the_week(
            lambda week: np.median(week, axis=-2)),
        "yesterday": _of_the_week(lambda week: week[..., -1, :]),
        "the same day a week ago": _of_the_week(lambda week: week[..., 0, :])},
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
