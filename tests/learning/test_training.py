"""Per-customer gradients and deltas against loops, models against flat vectors."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from opacus.validators import ModuleValidator
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from conf.schema import ModelConfig
from learning.models import build_model, get_flat, set_flat
from learning.task import Customers
from learning.training import (
    customer_deltas,
    customer_gradients,
    customer_losses,
    scores,
    train_locally,
)

MODELS = ("logistic", "mlp")
FEATURES = 7


def customers(n: int = 9, examples: int = 5, seed: int = 0) -> Customers:
    """Random; the last customer has no examples."""
    random = np.random.default_rng(seed)
    mask = random.random((n, examples)) < 0.6
    mask[:, 0] = True
    mask[-1:] = False
    features = random.normal(size=(n, examples, FEATURES)).astype(np.float32)
    targets = (features.sum(-1) + random.normal(size=(n, examples)) > 0).astype(np.float32)
    return Customers(features, targets, mask, np.zeros((n, examples), np.float32))


def model_at(name: str, seed: int = 3) -> torch.nn.Module:
    model = build_model(ModelConfig(name, 4), FEATURES, seed)
    set_flat(model, np.random.default_rng(seed).normal(size=get_flat(model).size))
    return model


def loss_of(model: torch.nn.Module, data: Customers, row: int) -> torch.Tensor:
    """Mean over the examples of one customer, one example at a time."""
    losses = [cross_entropy(model(torch.from_numpy(data.features[row, place])),
                            torch.tensor(data.targets[row, place]))
              for place in np.flatnonzero(data.mask[row])]
    return sum(losses, start=torch.zeros(())) / max(1, len(losses))


def gradient_by_loop(model: torch.nn.Module, data: Customers, row: int) -> np.ndarray:
    model.zero_grad()
    loss = loss_of(model, data, row)
    if loss.requires_grad:
        loss.backward()
    return np.concatenate([
        (torch.zeros_like(part) if part.grad is None else part.grad).numpy().reshape(-1)
        for part in model.parameters()])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_gradients_match_a_window_by_window_loop(name: str, chunk: int) -> None:
    model, data = model_at(name), customers()
    fast = np.concatenate(list(customer_gradients(model, data, chunk)))
    loop = np.stack([gradient_by_loop(copy.deepcopy(model), data, row) for row in range(9)])
    np.testing.assert_allclose(fast, loop, atol=1e-6)
    assert not fast[-1].any()


@pytest.mark.parametrize("name", MODELS)
def test_deltas_match_training_each_customer_alone(name: str) -> None:
    model, data = model_at(name), customers()
    fast = np.concatenate(list(customer_deltas(model, data, steps=3, learning_rate=0.5, chunk=4)))
    for row in range(9):
        own = copy.deepcopy(model)
        for _ in range(3):
            slope = gradient_by_loop(own, data, row)
            set_flat(own, get_flat(own) - 0.5 * slope)
        np.testing.assert_allclose(fast[row], get_flat(own) - get_flat(model), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_scores(name: str) -> None:
    model, data = model_at(name), customers()
    losses = customer_losses(model, data)
    with torch.no_grad():
        loop = [float(loss_of(model, data, row)) for row in range(8)]
    np.testing.assert_allclose(losses[:8], loop, rtol=1e-5)
    assert np.isnan(losses[8])
    assert scores(model, data).shape == data.mask.shape


@pytest.mark.parametrize("name", MODELS)
def test_no_customers_give_nothing(name: str) -> None:
    model, nobody = model_at(name), customers().take(np.zeros(0, np.int64))
    assert list(customer_gradients(model, nobody)) == []
    assert list(customer_deltas(model, nobody, steps=1, learning_rate=1.0)) == []
    assert scores(model, nobody).shape == (0, 5)
    assert customer_losses(model, nobody).shape == (0,)
    np.testing.assert_array_equal(get_flat(train_locally(model, nobody, 1.0)), get_flat(model))


def test_read_only_arrays_pass_without_copy_or_warning() -> None:
    data = customers()
    for array in (data.features, data.targets, data.mask):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(next(customer_gradients(model_at("mlp"), data))) == 9


@pytest.mark.parametrize("name", MODELS)
def test_local_training_reaches_a_minimum(name: str) -> None:
    data = customers(60, 8)
    trained = train_locally(build_model(ModelConfig(name, 4), FEATURES, 0), data, 1.0)
    rows = np.flatnonzero(data.mask.any(1))
    mean = np.concatenate(list(customer_gradients(trained, data.take(rows)))).sum(0)
    decay = np.concatenate([part.detach().numpy().reshape(-1) * (part.ndim > 1)
                            for part in trained.parameters()])
    np.testing.assert_allclose(mean + decay, 0, atol=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_flat_vectors_round_trip(name: str) -> None:
    model = build_model(ModelConfig(name), 39, 0)
    size = 40 if name == "logistic" else 8 * 39 + 8 + 8 + 1
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32).astype(np.float64)
    set_flat(model, vector)
    np.testing.assert_array_equal(get_flat(model), vector)
    with pytest.raises(ValueError, match="parameters"):
        set_flat(model, vector[:-1])


@pytest.mark.parametrize("name", MODELS)
def test_start_values_depend_on_the_seed_alone_and_suit_opacus(name: str) -> None:
    first, second = (get_flat(build_model(ModelConfig(name), 39, 5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not ModuleValidator.validate(build_model(ModelConfig(name), 39, 5), strict=False)
