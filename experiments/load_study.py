"""How the load task's loss was chosen: on validation only.

``python -m experiments.load_study`` prints a Markdown table of the validation MAE (kWh) of
baselines without privacy, over the real homes. Clip norm and learning rate are
experiments.model_study's.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from experiments.in_the_open import Case, composed
from experiments.series import markdown_head, markdown_row, print_tables
from learning.customers import concatenate
from learning.losses import Huber, Loss
from learning.models import build_model
from learning.training import train_locally

NEWCOMER = ("task.newcomer_partner=CA", "task.newcomer_customers=3")


def bend_table(seeds: Sequence[int]) -> Iterator[str]:
    """Bend of the Huber loss and weight decay: each partner alone, all pooled, and a newcomer
    with 3 homes and 8 weeks."""
    yield markdown_head("model, bend, decay", "local", "pooled", "newcomer alone")
    for model in ("linear", "mlp"):
        whole, few = (
            [Case.of(replace(composed("task=utility_load", f"model={model}", *more), seed=seed))
             for seed in seeds] for more in ((), NEWCOMER))
        for bend, decay in itertools.product((0.05, 0.1, 0.25, 1.0), (0.03, 0.1, 0.3, 1.0)):
            rows = [_errors(*cases, Huber(bend), decay) for cases in zip(whole, few, strict=True)]
            yield markdown_row(f"{model}, {bend:g}, {decay:g}", np.mean(rows, axis=0))


def _errors(case: Case, newcomer: Case, loss: Loss, decay: float) -> tuple[float, float, float]:
    start = build_model(case.config.model, case.task.shape, 0)
    local = {name: train_locally(start, data.train.whole(), loss, decay)
             for name, data in case.datas.items()}
    together = concatenate([data.train.whole() for data in case.datas.values()])
    pooled = train_locally(start, together, loss, decay)
    alone = train_locally(start, newcomer.datas["CA"].train.whole(), loss, decay)
    return (case.value(local.__getitem__, "validation"), case.value(lambda _: pooled, "validation"),
            case.value(lambda _: alone, "validation", ("CA",)))


def main(argv: list[str]) -> int:
    tables = {"bend": (bend_table.__doc__, bend_table)}
    return print_tables("experiments.load_study", __doc__, "TABLE", tables, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
