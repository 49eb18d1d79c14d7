"""The final comparison: the same test examples scored four ways, with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from conf.schema import ModelConfig
from learning.customers import CustomerParts, Customers, PartnerData, concatenate
from learning.metrics import Metric, interval
from learning.models import build_model
from learning.results import Comparison, Estimate
from learning.task import Task
from learning.training import scores, train_locally

WEIGHT_DECAY = {"linear": 1.0, "mlp": 1.0, "tcn": 1.0, "dpgru": 1.0}
"""Of the baselines, per model, where a task has no better one; chosen on validation
(python -m experiments.model_study decay): near the best for partners of every size, where less
would weaken small ones, more large ones. That of tcn is chosen for utility_load
alone: elsewhere compare their federation with the best local model of any kind."""
RESAMPLES = 500
FEWEST_FOR_INTERVALS = 5
"""Resamples of fewer customers say nothing about those who are not there."""
Vector = NDArray[np.float64]
_WAYS = ("naive", "local", "pooled", "federated")


def fit_baselines(
    datas: Mapping[str, PartnerData], model_config: ModelConfig, task: Task, seed: int
) -> tuple[dict[str, nn.Module], nn.Module]:
    """Without privacy: :func:`fit_local`, and one model of all partners' training customers
    together. The same public start for all."""
    everyone = concatenate([data.train.whole() for data in datas.values()])
    return (fit_local(datas, model_config, task, seed),
            _fitted(everyone, model_config, task, seed))


def fit_local(datas: Mapping[str, PartnerData], model_config: ModelConfig, task: Task,
              seed: int) -> dict[str, nn.Module]:
    """Partner -> a model of its own training customers, without privacy."""
    return {name: _fitted(data.train.whole(), model_config, task, seed)
            for name, data in datas.items()}


def _fitted(customers: Customers, model_config: ModelConfig, task: Task, seed: int) -> nn.Module:
    decay = task.weight_decay.get(model_config.name, WEIGHT_DECAY[model_config.name])
    start = build_model(model_config, task.shape, seed)
    return train_locally(start, customers, task.loss, decay)


def evaluate(
    datas: Mapping[str, PartnerData], federated: Mapping[str, nn.Module],
    local: Mapping[str, nn.Module], pooled: nn.Module, metric: Metric, seed: int,
    resamples: int = RESAMPLES, within: bool = False,
) -> tuple[Comparison, ...]:
    """One row per partner, then "all" (test customers), then "held out". federated: by partner,
    one and the same unless it has a head of its own. ``within``: of an AUC, a row "within
    partners" more (:func:`_within`).

    In the rows over several partners each customer's "local" score is its own partner's model's,
    and so is its "federated" one where partners have heads. Every such score speaks of the same
    event in the same unit (a logit, kWh), so the scores of different partners' models compare; a
    partner whose model is badly calibrated loses by it.
    """
    def examples(name: str, split: Callable[[PartnerData], CustomerParts]) -> _Examples:
        customers = split(datas[name])
        models = (local[name], pooled, federated[name])
        return _Examples.joined([
            _Examples.of(part, (part.naive, *(scores(model, part) for model in models)))
            for part in customers.parts()])

    test = {name: examples(name, lambda data: data.test) for name in datas}
    held_out = [examples(name, lambda data: data.heldout) for name in datas]
    groups = {**test, "all": _Examples.joined(list(test.values())),
              "held out": _Examples.joined(held_out)}
    rows = [_compared(name, group.customers, *_measured(group, metric, seed, resamples),
                      metric.higher_is_better) for name, group in groups.items()]
    if within:
        rows.append(_within(list(test.values()), metric, seed, resamples))
    return tuple(rows)


def exact(metric: Metric, parts: Iterable[tuple[Customers, NDArray[np.floating]]]) -> float:
    """The metric over several partners' customers and their (n, e, o) scores, all together."""
    together = _Examples.joined([_Examples.of(customers, (score,)) for customers, score in parts])
    return metric.exact(together.scores[0], together.targets, together.customer)


@dataclass(frozen=True)
class _Examples:
    """scores: (s, m, o), s ways to score; targets: (m, o); customer: (m,) in 0..customers - 1,
    each with at least one example."""

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


def _measured(group: _Examples, metric: Metric, seed: int | list[int],
              resamples: int) -> tuple[Vector, Vector]:
    """The metric of each way (s,), and over resampled customers (s, resamples), NaN for few."""
    values = [metric.exact(way, group.targets, group.customer) for way in group.scores]
    drawn = np.full((len(_WAYS), resamples), np.nan)
    if group.customers >= FEWEST_FOR_INTERVALS:
        drawn = metric.bootstrap(list(group.scores), group.targets, group.customer, resamples,
                                 seed)
    return np.array(values), drawn


def _within(groups: Sequence[_Examples], metric: Metric, seed: int, resamples: int) -> Comparison:
    """Chance that a positive scores above a negative of the same partner: the partners' own AUCs,
    weighted by their pairs of a positive and a negative. Of the pairs among all partners together
    most compare customers of different partners, whom nobody ever ranks in one list; there a
    model gains by being calibrated alike everywhere."""
    positives = np.array([np.sum(group.targets > 0.5) for group in groups], np.float64)
    pairs = positives * (np.array([group.targets.size for group in groups]) - positives)
    known = np.flatnonzero(pairs)
    shares = pairs[known] / pairs[known].sum()
    parts = [_measured(groups[place], metric, [seed, place], resamples) for place in known.tolist()]
    values = sum(share * value for share, (value, _) in zip(shares, parts, strict=True))
    drawn = sum(share * draws for share, (_, draws) in zip(shares, parts, strict=True))
    return _compared("within partners", sum(group.customers for group in groups),
                     np.asarray(values), np.asarray(drawn), metric.higher_is_better)


def _compared(name: str, customers: int, values: Vector, drawn: Vector,
              higher_is_better: bool) -> Comparison:
    sign = 1 if higher_is_better else -1
    estimates = {way: interval(value, row)
                 for way, value, row in zip(_WAYS, values, drawn, strict=True)}

    def gain(other: int) -> Estimate:
        return interval(sign * (values[-1] - values[other]), sign * (drawn[-1] - drawn[other]))

    return Comparison(
        partner=name, customers=customers, **estimates,
        gain_over_naive=gain(0), gain_over_local=gain(1),
    )
