"""Per-customer gradients and deltas against loops, models against flat vectors."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from opacus.validators import ModuleValidator

from conf.schema import ModelConfig
from learning import training
from learning.customers import Customers, InputShape
from learning.losses import CrossEntropy, Huber, Loss
from learning.models import build_model, get_flat, set_flat
from learning.training import (
    customer_deltas,
    customer_gradients,
    customer_losses,
    scores,
    train_locally,
)

FEATURES = 7


@dataclass(frozen=True)
class Case:
    """A model on a kind of question: one answer a logit, or three numbers with a history."""

    model: str
    shape: InputShape
    loss: Loss

    def build(self, seed: int = 3) -> torch.nn.Module:
        return build_model(ModelConfig(self.model, 4), self.shape, seed)


CASES = [
    *(Case(model, shape, loss) for model in ("linear", "mlp") for shape, loss in (
        (InputShape(1, FEATURES), CrossEntropy()),
        (InputShape(3, 2, steps=1, channels=1), Huber(0.5)))),
    *(Case(model, shape, loss) for model in ("tcn", "dpgru") for shape, loss in (
        (InputShape(1, 1, steps=3, channels=2), CrossEntropy()),
        (InputShape(3, 1, steps=4, channels=1), Huber(0.5)),
        (InputShape(2, 1, steps=2, channels=1, series=2), Huber(0.5))))]
every_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.model} {case.shape.outputs}")


def customers(case: Case, n: int = 9, examples: int = 5, seed: int = 0) -> Customers:
    """Random; the last customer has no examples. With several outputs the goals are what a
    naive prediction leaves open."""
    random = np.random.default_rng(seed)
    mask = random.random((n, examples)) < 0.6
    mask[:, 0] = True
    mask[-1:] = False
    features = random.normal(size=(n, examples, case.shape.size)).astype(np.float32)
    features = np.rint(features * 2**20) / np.float32(2**20)  # as they count (Customers.grid)
    outputs = case.shape.outputs
    noise = random.normal(size=(n, examples, outputs))
    targets = (features.sum(-1, keepdims=True) + noise).astype(np.float32)
    naive = np.zeros((n, examples, outputs), np.float32)
    if outputs == 1:
        return Customers(features, (targets > 0).astype(np.float32), mask, naive)
    return Customers(features, targets, mask, naive + 1,
                     random.uniform(0.5, 2, (n, examples)).astype(np.float32))


def model_at(case: Case, seed: int = 3) -> torch.nn.Module:
    model = case.build(seed)
    set_flat(model, np.random.default_rng(seed).normal(size=get_flat(model).size))
    return model


def loss_of(case: Case, model: torch.nn.Module, data: Customers, row: int) -> torch.Tensor:
    """Mean over the examples of one customer, one example at a time."""
    losses = [case.loss(model(torch.from_numpy(data.features[row, place])),
                        torch.from_numpy(data.goals[row, place]))
              for place in np.flatnonzero(data.mask[row])]
    return sum(losses, start=torch.zeros(())) / max(1, len(losses))


def gradient_by_loop(case: Case, model: torch.nn.Module, data: Customers, row: int) -> np.ndarray:
    model.zero_grad()
    loss = loss_of(case, model, data, row)
    if loss.requires_grad:
        loss.backward()
    return np.concatenate([
        (torch.zeros_like(part) if part.grad is None else part.grad).numpy().reshape(-1)
        for part in model.parameters()])


@every_case
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_gradients_match_a_window_by_window_loop(case: Case, chunk: int) -> None:
    model, data = model_at(case), customers(case)
    fast = np.concatenate(list(customer_gradients(model, data, case.loss, chunk)))
    loop = np.stack([gradient_by_loop(case, copy.deepcopy(model), data, row) for row in range(9)])
    np.testing.assert_allclose(fast, loop, atol=1e-6)
    assert not fast[-1].any()


def padded(case: Case, most: int = 100, n: int = 40) -> Customers:
    """One customer in the middle with ``most`` examples, the others with three."""
    data = customers(case, n, most)
    data.mask[:] = np.arange(most) < np.where(np.arange(n) == n // 2, most, 3)[:, None]
    return data


@every_case
def test_one_busy_customer_does_not_make_work_for_all(case: Case, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    data, model = padded(case), model_at(case)
    monkeypatch.setattr(training, "_FEATURE_VALUES", 150 * case.shape.size)
    worked = [tuple(batch.mask.shape) for batch in training._batches(data.fewest_first(), 1000)]
    assert sum(map(math.prod, worked)) < 1.2 * data.mask.sum() < 0.1 * data.mask.size
    assert max(map(math.prod, worked)) <= 150 and sum(count for count, _ in worked) == 40
    rows = np.concatenate(list(customer_gradients(model, data, case.loss)))
    order = np.argsort(data.mask.sum(1), kind="stable")
    ordered = np.concatenate(list(customer_gradients(model, data.fewest_first(), case.loss)))
    np.testing.assert_allclose(ordered, rows[order], atol=1e-6)
    np.testing.assert_allclose(customer_losses(model, data.fewest_first(), case.loss),
                               customer_losses(model, data, case.loss)[order], rtol=1e-6)


@every_case
def test_deltas_match_training_each_customer_alone(case: Case) -> None:
    model, data = model_at(case), customers(case)
    fast = np.concatenate(list(customer_deltas(model, data, case.loss, steps=3, learning_rate=0.5,
                                           chunk=4)))
    for row in range(9):
        own = copy.deepcopy(model)
        for _ in range(3):
            slope = gradient_by_loop(case, own, data, row)
            set_flat(own, get_flat(own) - 0.5 * slope)
        np.testing.assert_allclose(fast[row], get_flat(own) - get_flat(model), atol=1e-5)


@every_case
def test_a_proximal_term_pulls_each_local_training_back(case: Case) -> None:
    """FedProx: the gradient gains mu times the way already gone."""
    model, data = model_at(case), customers(case)
    start = get_flat(model)
    fast = np.concatenate(list(customer_deltas(model, data, case.loss, steps=3, learning_rate=0.5,
                                               proximal=0.7)))
    for row in range(9):
        own = copy.deepcopy(model)
        for _ in range(3):
            slope = gradient_by_loop(case, own, data, row) + 0.7 * (get_flat(own) - start)
            set_flat(own, get_flat(own) - 0.5 * slope)
        np.testing.assert_allclose(fast[row], get_flat(own) - start, atol=1e-5)


@every_case
def test_losses_and_scores(case: Case) -> None:
    model, data = model_at(case), customers(case)
    losses = customer_losses(model, data, case.loss)
    with torch.no_grad():
        loop = [float(loss_of(case, model, data, row)) for row in range(8)]
    np.testing.assert_allclose(losses[:8], loop, rtol=1e-5)
    assert np.isnan(losses[8])
    assert scores(model, data).shape == data.targets.shape


@every_case
def test_no_customers_give_nothing(case: Case) -> None:
    model, nobody = model_at(case), customers(case).take(np.zeros(0, np.int64))
    assert list(customer_gradients(model, nobody, case.loss)) == []
    assert list(customer_deltas(model, nobody, case.loss, steps=1, learning_rate=1.0)) == []
    assert scores(model, nobody).shape == (0, 5, case.shape.outputs)
    assert customer_losses(model, nobody, case.loss).shape == (0,)
    np.testing.assert_array_equal(get_flat(train_locally(model, nobody, case.loss, 1.0)),
                                  get_flat(model))


@every_case
def test_read_only_arrays_pass_without_copy_or_warning(case: Case) -> None:
    data = customers(case)
    for array in (*data.arrays, data.goals):
        if array is not None:
            array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(next(customer_gradients(model_at(case), data, case.loss))) == 9


@every_case
def test_local_training_reaches_a_minimum(case: Case) -> None:
    data = customers(case, 60, 8)
    trained = train_locally(case.build(0), data, case.loss, 1.0)
    rows = np.flatnonzero(data.mask.any(1))
    mean = np.concatenate(list(customer_gradients(trained, data.take(rows), case.loss))).sum(0)
    decay = np.concatenate([part.detach().numpy().reshape(-1) * (part.ndim > 1)
                            for part in trained.parameters()])
    np.testing.assert_allclose(mean + decay, 0, atol=0.02)


@every_case
def test_flat_vectors_round_trip(case: Case) -> None:
    model = case.build()
    size = sum(parameter.numel() for parameter in model.parameters())
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32).astype(np.float64)
    set_flat(model, vector)
    np.testing.assert_array_equal(get_flat(model), vector)
    with pytest.raises(ValueError, match="parameters"):
        set_flat(model, vector[:-1])


@pytest.mark.parametrize(("name", "size"), [("linear", 40), ("mlp", 8 * 39 + 8 + 8 + 1)])
def test_weights_are_shared_by_the_outputs(name: str, size: int) -> None:
    for outputs in (1, 24):
        model = build_model(ModelConfig(name), InputShape(outputs, 39), 0)
        assert get_flat(model).size == size


@every_case
def test_start_values_depend_on_the_seed_alone_and_suit_opacus(case: Case) -> None:
    first, second = (get_flat(case.build(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not ModuleValidator.validate(case.build(5), strict=False)


@pytest.mark.parametrize("loss", [CrossEntropy(), Huber(0.5)])
def test_slopes_are_derivatives(loss: Loss) -> None:
    outputs = torch.linspace(-2, 2, 24).reshape(8, 3).requires_grad_()
    goals = (torch.arange(24).reshape(8, 3) % 2).float()
    loss(outputs, goals).sum().backward()
    torch.testing.assert_close(loss.slope(outputs, goals), outputs.grad)
    assert pickle.loads(pickle.dumps(loss)) == loss


def test_a_model_that_says_nothing_is_the_naive_rule() -> None:
    data = customers(CASES[1])
    assert data.scale is not None
    np.testing.assert_allclose(data.scores(np.zeros_like(data.targets)), data.naive)
    back = data.scores(data.goals)
    np.testing.assert_allclose(back[data.mask], data.targets[data.mask], atol=1e-5)
    assert not data.goals[~data.mask].any()


def test_the_layout_of_an_example() -> None:
    shape = InputShape(outputs=2, per_output=3, steps=4, channels=5)
    flat = np.arange(2 * shape.size, dtype=np.float32).reshape(2, shape.size)
    assert shape.groups(flat)[1, 1, 0] == shape.size + 3
    assert shape.history(flat)[0, 0, 1, 2] == 6 + 5 + 2
    own = InputShape(outputs=2, per_output=3, steps=4, channels=5, series=2)
    flat = np.arange(own.size, dtype=np.float32)
    assert own.history(flat)[1, 1, 2] == 6 + 20 + 5 + 2
