"""The final comparison: the same test examples scored four ways, with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from conf.schema import ModelConfig
from learning.metrics import auc, interval, paired_bootstrap
from learning.models import build_model
from learning.results import Comparison
from learning.task import Customers, PartnerData
from learning.training import scores, train_locally

WEIGHT_DECAY = {"logistic": 1.0, "mlp": 1.0}
"""Of the baselines, per model; chosen on validation (python -m experiments.task_study decay):
near the best for partners of every size, where less would weaken small ones, more large ones."""
RESAMPLES = 500
_WAYS = ("naive", "local", "pooled", "federated")


def fit_baselines(
    datas: Mapping[str, PartnerData], model_config: ModelConfig, seed: int
) -> tuple[dict[str, nn.Module], nn.Module]:
    """Without privacy: partner -> a model of its own training customers, and one model of all
    partners' training customers together. The same public start for all."""
    features = next(iter(datas.values())).train.features.shape[-1]
    start = build_model(model_config, features, seed)
    decay = WEIGHT_DECAY[model_config.name]
    local = {name: train_locally(start, data.train, decay) for name, data in datas.items()}
    together = concatenate([data.train for data in datas.values()])
    return local, train_locally(start, together, decay)


def evaluate(
    datas: Mapping[str, PartnerData], federated: nn.Module, local: Mapping[str, nn.Module],
    pooled: nn.Module, seed: int, resamples: int = RESAMPLES,
) -> tuple[Comparison, ...]:
    """One row per partner, then "all" (test customers), then "held out".

    In the rows over several partners each customer's "local" score is its own partner's model's.
    Every such score is a logit of the same event, so the scores of different partners' models
    rank against each other; a partner whose model is badly calibrated loses by it.
    """
    def examples(name: str, part: Callable[[PartnerData], Customers]) -> _Examples:
        customers = part(datas[name])
        ways = (customers.naive, scores(local[name], customers), scores(pooled, customers),
                scores(federated, customers))
        return _Examples.of(customers, ways)

    test = {name: examples(name, lambda data: data.test) for name in datas}
    held_out = [examples(name, lambda data: data.heldout) for name in datas]
    groups = {**test, "all": _Examples.joined(list(test.values())),
              "held out": _Examples.joined(held_out)}
    return tuple(_compare(name, group, seed, resamples) for name, group in groups.items())


def concatenate(parts: list[Customers]) -> Customers:
    """All customers of several partners, padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)

    def joined(field: str) -> NDArray[np.generic]:
        arrays = [getattr(part, field) for part in parts]
        return np.concatenate([
            np.pad(array, [(0, 0), (0, longest - array.shape[1])] + [(0, 0)] * (array.ndim - 2))
            for array in arrays])

    return Customers(joined("features"), joined("targets"), joined("mask"), joined("naive"))


@dataclass(frozen=True)
class _Examples:
    """scores: (4, m) in the order of _WAYS; targets: (m,); customer: (m,) in 0..customers - 1."""

    scores: NDArray[np.float32]
    targets: NDArray[np.float32]
    customer: NDArray[np.int64]
    customers: int

    @classmethod
    def of(cls, customers: Customers, ways: tuple[NDArray[np.float32], ...]) -> _Examples:
        useful = customers.mask.any(1)
        number = np.cumsum(useful) - 1
        rows, _ = np.nonzero(customers.mask)
        return cls(np.stack([way[customers.mask] for way in ways]),
                   customers.targets[customers.mask], number[rows], int(useful.sum()))

    @classmethod
    def joined(cls, parts: list[_Examples]) -> _Examples:
        starts = np.cumsum([0] + [part.customers for part in parts])
        return cls(np.concatenate([part.scores for part in parts], axis=1),
                   np.concatenate([part.targets for part in parts]),
                   np.concatenate([part.customer + start
                                   for part, start in zip(parts, starts, strict=False)]),
                   int(starts[-1]))


def _compare(name: str, group: _Examples, seed: int, resamples: int) -> Comparison:
    values = [auc(way, group.targets) for way in group.scores]
    drawn = paired_bootstrap(list(group.scores), group.targets, group.customer, resamples, seed)
    estimates = {way: interval(value, row)
                 for way, value, row in zip(_WAYS, values, drawn, strict=True)}

    def gain(other: int) -> NDArray[np.float64]:
        return drawn[-1] - drawn[other]

    return Comparison(
        partner=name, customers=group.customers, **estimates,
        gain_over_naive=interval(values[-1] - values[0], gain(0)),
        gain_over_local=interval(values[-1] - values[1], gain(1)),
    )
