"""A customer's row depends on that customer alone, to the bit, under any model that could be sent.

Each test takes two neighbouring data sets and looks for a model, loss, metric or division into
parts under which somebody who is in both has another row. Before rows were computed exactly, one
customer with more examples than the others decided whether they counted at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conf.schema import ModelConfig
from learning.auc import Auc
from learning.customers import Customers, InputShape
from learning.losses import CrossEntropy, Huber, Loss
from learning.metrics import MeanAbsoluteError, Metric
from learning.models import build_model, get_flat, set_flat
from learning.totals import TotalsError
from learning.training import customer_deltas, customer_gradients, customer_losses, scores
from privacy.clipping import clip_and_sum, clip_rows

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What a task asks: the layout of its examples, its loss and its metric; most examples of a
    customer, or all have as many (``fixed``)."""

    shape: InputShape
    loss: Loss
    metric: Metric
    most: int
    fixed: bool = False


QUESTIONS = {
    "buys again": Question(InputShape(1, 9, 4, 2), CrossEntropy(), Auc(), 40),
    "load": Question(InputShape(24, 5, 3, 24), Huber(0.1, 2.0), MeanAbsoluteError("kWh", 2.0), 11),
    "demand": Question(InputShape(4, 3, 4, 2, 4), Huber(8.0), TotalsError(3, 4, 20.0), 3, True),
    "few, one output": Question(InputShape(1, 1, 3, 1), Huber(0.5), MeanAbsoluteError("", 1.0), 2),
}
MODELS = ("linear", "mlp", "tcn", "dpgru")
HOSTILE = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e300, 1e-300, 1e-40, 5e-324, 1e6, -1e6, 1e19, 0.0)
"""As float64 on the wire: some of them are infinite, or nothing, in float32."""
every_question = pytest.mark.parametrize("name", QUESTIONS)
every_model = pytest.mark.parametrize("model", MODELS)


def people(question: Question, random: np.random.Generator, n: int) -> Customers:
    """One customer with many more examples than the others, some with none, some padded in the
    middle, all by chance."""
    counts = np.full(n, question.most) if question.fixed else random.integers(0, 4, n)
    if not question.fixed and n:
        counts[random.integers(n)] = question.most
    width = max(1, int(counts.max(initial=1)))
    mask = np.arange(width) < counts[:, None]
    if not question.fixed:
        mask = random.permuted(mask, axis=1)
    size = (n, width, question.shape.size)
    bound = random.choice([0.0, 1e-3, 3.0])
    features = random.uniform(-bound, bound, size).astype(np.float32) * mask[..., None]
    goals = (n, width, question.shape.outputs)
    if isinstance(question.loss, CrossEntropy):
        targets, scale = random.integers(0, 2, goals).astype(np.float32), None
    else:
        targets = random.gamma(1, 1, goals).astype(np.float32)
        scale = random.uniform(0.05, 2, (n, width)).astype(np.float32)
    naive = random.normal(size=goals).astype(np.float32)
    return Customers(features, targets, mask, naive, scale)


def hostile_model(model: str, question: Question, random: np.random.Generator) -> torch.nn.Module:
    """Ordinary weights, with some, most or all of them chosen to do harm."""
    built = build_model(ModelConfig(model, hidden=3), question.shape, 1)
    size = get_flat(built).size
    vector = random.normal(size=size) * random.choice([0.0, 1.0, 1e3, 1e18])
    chosen = random.random(size) < random.choice([0.0, 1.5 / size, 0.3, 1.0])
    vector[chosen] = random.choice(HOSTILE, int(chosen.sum()))
    with np.errstate(over="ignore"):
        set_flat(built, vector)
    return built


def without(customers: Customers, row: int) -> Customers:
    """The neighbour, with no place more than its customers need: as a site would hold it."""
    rest = customers.take(np.delete(np.arange(len(customers)), row))
    places = rest.mask.any(0) if len(rest) else np.ones(rest.mask.shape[1], np.bool_)
    width = max(1, int(np.flatnonzero(places).max(initial=0)) + 1)
    return Customers(*(part if part is None else part[:, :width] for part in rest.arrays))


def all_rows(kind: str, model: torch.nn.Module, question: Question, customers: Customers,
             chunk: int | None) -> Rows:
    """(n, ...) rows of every customer, as they are clipped."""
    if kind == "gradient":
        found = list(customer_gradients(model, customers, question.loss, chunk))
    elif kind == "training":
        found = list(customer_deltas(model, customers, question.loss, 2, 0.7, 0.1, chunk))
    elif kind == "loss":
        found = [np.nan_to_num(customer_losses(model, customers, question.loss))[:, None]]
    else:
        found = [np.asarray(question.metric.statistics(scores(model, customers), customers))]
    size = get_flat(model).size
    return np.concatenate([np.zeros((0, found[0].shape[1] if found else size)), *found])


def clip_of(kind: str, question: Question) -> float:
    return {"loss": question.loss.clip, "metric": question.metric.clip}.get(kind, 0.5)


@every_question
@every_model
@pytest.mark.parametrize("kind", ["gradient", "training", "loss", "metric"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 6), chunk=st.sampled_from([None, 1, 2, 5]))
def test_a_row_is_its_customers_alone(name: str, model: str, kind: str, seed: int, n: int,
                                      chunk: int | None) -> None:
    random, question = np.random.default_rng(seed), QUESTIONS[name]
    customers = people(question, random, n)
    sent = hostile_model(model, question, random)
    rows = all_rows(kind, sent, question, customers, None)
    clipped, clip = clip_rows(rows, clip_of(kind, question)), clip_of(kind, question)
    total = clip_and_sum(rows, clip)

    order = random.permutation(n)
    again = all_rows(kind, sent, question, customers.take(order), chunk)
    assert np.array_equal(again, rows[order], equal_nan=True), "another order, other chunks"
    assert np.array_equal(clip_and_sum(again, clip), total)

    left_out = int(random.integers(n))
    neighbour = without(customers, left_out)
    rest = all_rows(kind, sent, question, neighbour, chunk)
    assert np.array_equal(rest, np.delete(rows, left_out, 0), equal_nan=True), "somebody left"
    change = total - clip_and_sum(rest, clip)
    assert np.array_equal(change, clipped[left_out])
    assert np.linalg.norm(change) <= clip

    row = int(random.integers(n))
    alone = all_rows(kind, sent, question, customers.take(np.array([row])), chunk)[0]
    assert np.array_equal(alone, rows[row], equal_nan=True), "alone"


@every_question
@every_model
def test_a_long_history_does_not_silence_short_ones(name: str, model: str) -> None:
    """The attack as it was played: one infinite weight, and a customer whose examples pad those
    of all others."""
    question = QUESTIONS[name]
    random = np.random.default_rng(3)
    customers = people(question, random, 30)
    for place in range(get_flat(build_model(ModelConfig(model, 3), question.shape, 1)).size):
        sent = build_model(ModelConfig(model, hidden=3), question.shape, 1)
        vector = get_flat(sent)
        vector[place] = 1e300
        with np.errstate(over="ignore"):
            set_flat(sent, vector)
        rows = all_rows("gradient", sent, question, customers, None)
        longest = int(customers.mask.sum(1).argmax())
        rest = all_rows("gradient", sent, question, without(customers, longest), None)
        assert np.array_equal(np.delete(rows, longest, 0), rest, equal_nan=True)
