"""``python -m experiments.benchmarks.rows``: what exact rows cost. See README.md."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from experiments.in_the_open import Case, composed
from learning.customers import Customers
from learning.losses import Loss
from learning.models import get_flat, set_flat
from learning.registry import make_model
from learning.training import customer_gradients, customer_losses, scores

MODELS = ("linear", "mlp", "tcn", "dpgru")
_CHUNK = 256


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.rows",
        description="CPU time of every partner's gradients in one round, and of what rides along: "
                    "as a site computes them, against plain float32 batches.")
    parser.add_argument("--task", default="retail_repeat", help="default retail_repeat")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved; default 7")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| model | plain gradients, ms | exact | ratio | exact scores and losses, ms |")
    print("|---|--:|--:|--:|--:|")
    for name in chosen.models:
        print(_row(name, Case.of(composed(f"task={chosen.task}", f"model={name}")),
                   chosen.repeats), flush=True)
    return 0


def _row(name: str, case: Case, repeats: int) -> str:
    model, loss = make_model(case.config), case.task.loss
    size = get_flat(model).size
    set_flat(model, get_flat(model) + 0.1 * np.random.default_rng(0).normal(size=size))
    parts = [part for data in case.datas.values() for part in data.train.parts()]
    checked = [part for data in case.datas.values() for part in data.validation.parts()]

    def exact() -> None:
        for part in parts:
            for _ in customer_gradients(model, part, loss):
                pass

    def plain() -> None:
        for part in parts:
            plain_gradients(model, part, loss)

    def riding() -> None:
        for part in checked:
            scores(model, part)
        for part in parts:
            customer_losses(model, part, loss)

    ways: tuple[Callable[[], None], ...] = (plain, exact, riding)
    spent: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 1):
        for way, times in zip(ways, spent, strict=True):
            began = time.process_time()
            way()
            if turn:  # the first one warms up
                times.append(1e3 * (time.process_time() - began))
    slow, fast = statistics.median(spent[1]), statistics.median(spent[0])
    return (f"| {name} | {fast:.0f} | {slow:.0f} | {slow / fast:.1f} "
            f"| {statistics.median(spent[2]):.0f} |")


def plain_gradients(model: nn.Module, customers: Customers, loss: Loss) -> None:
    """Each customer's gradient in float32, batched as PyTorch likes: what a site must not do."""
    state = {name: value.detach() for name, value in model.named_parameters()}

    def mean(state: dict[str, torch.Tensor], features: torch.Tensor, goals: torch.Tensor,
             mask: torch.Tensor) -> torch.Tensor:
        losses = loss(functional_call(model, state, (features,)), goals)
        return (losses * mask).sum() / mask.sum().clamp(min=1)

    rows = vmap(grad(mean), in_dims=(None, 0, 0, 0))
    for start in range(0, len(customers), _CHUNK):
        part = customers.take(np.arange(start, min(start + _CHUNK, len(customers)))).narrowed()
        rows(state, torch.from_numpy(part.features), torch.from_numpy(part.goals),
             torch.from_numpy(part.mask).float())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
