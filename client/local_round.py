"""What a partner computes in a round, without Flower, a network or a key: pure sums.

Guarantee: one customer changes each region's sum by at most the region's clip norm, and no other
customer's part in it, to the bit, whatever model it is taken at (learning.exact,
privacy.clipping); the noise is added afterwards, on the integer grid, by the privacy plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from conf.schema import Config
from learning.customers import CustomerParts, Customers, PartnerData
from learning.losses import Loss
from learning.metrics import Metric
from learning.models import set_flat
from learning.registry import make_model, make_task
from learning.training import (
    customer_deltas,
    customer_gradients,
    customer_losses,
    gradients_and_losses,
    scores,
)
from privacy.clipping import clip_and_sum
from strategies.agreement import Agreement

Vector = NDArray[np.float64]


def training_sums(
    model_vector: Vector, data: PartnerData, config: Config, agreement: Agreement, partner: str
) -> Mapping[str, Vector]:
    """Region name -> this partner's clipped sum: update (d,), metric (m,), loss (1,). (d,) is the
    whole model, head included: a customer's update is clipped over both parts together."""
    model, task = make_model(config), make_task(config)
    set_flat(model, model_vector)
    update, losses = np.zeros(_size(model)), np.zeros(1)
    clip = agreement.training.region("update").clip_norm
    # In one pass: parts that are not kept take longer to make than to learn from.
    for part in data.train.parts():
        for rows, each in _rows_and_losses(model, part, config, task.loss):
            update += clip_and_sum(rows, clip)
            losses += _clipped_losses(each, task.loss)
    if config.privacy.name == "local_dp":
        update = _local_dp_update(model, data.train, config, agreement, partner)
    metric = np.zeros(task.metric.size)
    for part in data.validation.parts():
        metric += _statistics(task.metric, scores(model, part), part)
    return {"update": update, "metric": metric, "loss": losses}


def test_sums(model_vector: Vector, data: PartnerData, config: Config) -> Mapping[str, Vector]:
    """The metric's statistics of customers that never trained: of the final model (with this
    partner's head, which is as private as what is released) and of the naive rule.

    A partner's local-only model has no place here: it is not private, so even statistics of
    other customers' scores would tell about those who trained it.
    """
    model, metric = make_model(config), make_task(config).metric
    set_flat(model, model_vector)
    of_model, of_naive = np.zeros((2, metric.size))
    for part in data.heldout.parts():
        of_model += _statistics(metric, scores(model, part), part)
        of_naive += _statistics(metric, part.naive, part)
    return {"metric_model": of_model, "metric_naive": of_naive}


def update_sum(
    model: torch.nn.Module, train: CustomerParts, config: Config, agreement: Agreement, partner: str
) -> Vector:
    """(d,): the sum of the customers' clipped updates of the whole model."""
    if config.privacy.name == "local_dp":
        return _local_dp_update(model, train, config, agreement, partner)
    loss, clip = make_task(config).loss, agreement.training.region("update").clip_norm
    return sum((clip_and_sum(rows, clip) for part in train.parts()
                for rows, _ in _rows_and_losses(model, part, config, loss)),
               start=np.zeros(_size(model)))


def _rows_and_losses(
    model: torch.nn.Module, part: Customers, config: Config, loss: Loss
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Each customer's update (c, d), not clipped, and its mean loss (c,), in chunks: some may hold
    one of the two alone. No updates in ``local_dp``, which takes its own steps."""
    none, privacy = np.zeros((0, _size(model))), config.privacy
    if privacy.name != "local_dp" and privacy.contribution == "gradient":
        for gradients, losses in gradients_and_losses(model, part, loss):
            yield -gradients, losses
        return
    yield none, customer_losses(model, part, loss)
    if privacy.name != "local_dp":
        for deltas in customer_deltas(model, part, loss, steps=privacy.local_steps,
                                      learning_rate=privacy.local_learning_rate,
                                      proximal=_proximal(config)):
            yield deltas, none[:, 0]


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _proximal(config: Config) -> float:
    return config.strategy.proximal if config.strategy.name == "fedprox" else 0.0


def _local_dp_update(
    model: torch.nn.Module, train: CustomerParts, config: Config, agreement: Agreement, partner: str
) -> Vector:
    """A DP-SGD delta, weighted by the partner's public share of customers (mean weight 1)."""
    # Opacus: seconds to load, needed in this mode alone.
    from privacy.local_dp import Sample, dp_sgd

    loss = make_task(config).loss

    def gradients(at: torch.nn.Module, sample: Sample) -> Iterator[NDArray[np.floating]]:
        for part in train.parts():
            chosen = part.take(np.flatnonzero(sample(len(part))))
            yield from customer_gradients(at, chosen, loss)

    delta = dp_sgd(
        model, gradients, steps=config.privacy.local_steps, sample_rate=config.privacy.sample_rate,
        noise_multiplier=agreement.training.local_noise_multiplier,
        clip_norm=config.privacy.clip_norm,
        learning_rate=config.privacy.local_learning_rate,
        expected_customers=config.federation.customers[partner],
    )
    return delta * agreement.weights[partner]


def _statistics(metric: Metric, score: NDArray[np.floating], customers: Customers) -> Vector:
    return clip_and_sum(metric.statistics(score, customers), metric.clip)


def _clipped_losses(each: NDArray[np.floating], loss: Loss) -> Vector:
    """(n,) mean losses -> (1,) their sum; a customer without examples counts 0."""
    losses = np.nan_to_num(each, nan=0.0, posinf=loss.clip, neginf=0)
    return clip_and_sum(np.clip(losses, 0.0, loss.clip)[:, None], loss.clip)
