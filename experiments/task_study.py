"""How the question of retail_repeat was chosen: on validation only.

``python -m experiments.task_study`` prints a Markdown table of variants, each with the validation
AUC of baselines without privacy. Clip norm, learning rate and weight decay are
experiments.model_study's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np

from conf.schema import Config, ModelConfig, TaskConfig
from experiments.in_the_open import Case, composed
from experiments.series import markdown_head, markdown_row, print_tables
from learning.complete_journey import LAST_DAY
from learning.customers import concatenate
from learning.evaluation import fit_baselines


def question_table(seeds: Sequence[int]) -> Iterator[str]:
    """Naive, local and pooled (no privacy) for each variant of the question."""
    config = composed("task=retail_repeat")
    yield markdown_head("question", "base rate", "naive", "local", "pooled", "pooled mlp")
    for name, task in variants(config.task).items():
        yield markdown_row(name, np.mean(
            [_baselines(replace(config, task=task, seed=seed)) for seed in seeds], axis=0))


def variants(base: TaskConfig) -> dict[str, TaskConfig]:
    return {
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


def _baselines(config: Config) -> tuple[float, ...]:
    case = Case.of(config)
    everyone = concatenate([data.validation.whole() for data in case.datas.values()])
    local, pooled = fit_baselines(case.datas, ModelConfig("linear"), case.task, config.seed)
    _, wide = fit_baselines(case.datas, ModelConfig("mlp"), case.task, config.seed)
    return (float(everyone.targets[everyone.mask].mean()), case.value(None, "validation"),
            case.value(local.__getitem__, "validation"), case.value(lambda _: pooled, "validation"),
            case.value(lambda _: wide, "validation"))


def spaced(horizon_days: int, count: int) -> list[str]:
    """Training snapshots, one horizon apart, that end before validation's in the bundled data."""
    end = date.fromisoformat(LAST_DAY) + timedelta(days=1 - 2 * horizon_days)
    return [(end - back * timedelta(days=horizon_days)).isoformat()
            for back in range(count, 0, -1)]


def main(argv: list[str]) -> int:
    tables = {"question": (question_table.__doc__, question_table)}
    return print_tables("experiments.task_study", __doc__, "TABLE", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
