"""Opacus with the customer as sample: gradients against a loop, noise, sampling, robustness."""

import copy
import math
import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, norm
from torch import nn
from torch.nn import functional as F

from conf.schema import ModelConfig
from learning.customers import Customers, InputShape
from learning.losses import CrossEntropy, Huber, Loss
from learning.models import build_model
from learning.training import customer_gradients
from privacy import noise
from privacy.clipping import clip_and_sum
from privacy.local_dp import Gradients, Sample, dp_sgd
from privacy.local_grid import NoiseGrid

RARE = 1e-9


class Mlp(nn.Module):
    def __init__(self, features: int = 4, hidden: int = 3) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(features, hidden), nn.Linear(hidden, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(features)))


class Linear(nn.Module):
    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


def customers(n: int, e: int = 5, f: int = 4, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(seed)
    mask = random.random((n, e)) < 0.7
    return (random.normal(size=(n, e, f)).astype(np.float32),
            (random.random((n, e)) < 0.5).astype(np.float32), mask)


def train(model: nn.Module, data: tuple[NDArray, NDArray, NDArray],
          **overrides: float) -> NDArray[np.float64]:
    options: dict = {"steps": 1, "sample_rate": 1.0, "noise_multiplier": 0.0, "clip_norm": 1.0,
                     "learning_rate": 1.0, "expected_customers": 10} | overrides
    return dp_sgd(model, gradients_of(data), **options)


def gradients_of(data: tuple[NDArray, NDArray, NDArray], loss: Loss = CrossEntropy(),  # noqa: B008
                 sizes: list[int] | None = None) -> Gradients:
    """Rows as a site computes them; ``sizes`` hears how many customers a step drew."""
    features, goals, mask = data
    goals = goals if goals.ndim == 3 else goals[..., None]
    everybody = Customers(features, goals, mask, np.zeros_like(goals))

    def gradients(model: nn.Module, sample: Sample) -> Iterator[NDArray[np.float32]]:
        chosen = np.flatnonzero(sample(len(everybody)))
        if sizes is not None:
            sizes.append(len(chosen))
        yield from customer_gradients(model, everybody.take(chosen), loss)

    return gradients


def loop_gradients(model: nn.Module, data: tuple[NDArray, NDArray, NDArray]) -> NDArray:
    """(n, d): each customer's own backward pass over its own masked examples."""
    rows = []
    for x, y, m in zip(*(torch.from_numpy(array) for array in data), strict=True):
        alone = copy.deepcopy(model)
        if m.any():
            F.binary_cross_entropy_with_logits(alone(x[m])[..., 0], y[m]).backward()
        rows.append(np.concatenate([
            np.zeros(p.numel()) if p.grad is None else p.grad.numpy().ravel()
            for p in alone.parameters()]))
    return np.array(rows)


@pytest.mark.parametrize("make", [Mlp, Linear])
def test_one_sample_is_one_customer(make: type[nn.Module]) -> None:
    model, data = make(), customers(7)
    data[2][3] = False
    rows = list(gradients_of(data)(model, lambda n: np.ones(n, np.bool_)))
    assert np.allclose(np.concatenate(rows), loop_gradients(model, data), atol=1e-6)


@pytest.mark.parametrize("series", [1, 3])
@pytest.mark.parametrize("name", ["linear", "mlp", "tcn", "dpgru"])
def test_a_model_of_several_outputs(name: str, series: int) -> None:
    """One step on all customers is the clipped sum of the gradients that federated rounds take."""
    shape, loss = InputShape(3, 2, steps=4, channels=2, series=series), Huber(0.5)
    model = build_model(ModelConfig(name, 4), shape, 1)
    features, _, mask = customers(7, f=shape.size)
    goals = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    step = dp_sgd(model, gradients_of((features, goals, mask), loss), steps=1, sample_rate=1.0,
                  noise_multiplier=0.0, clip_norm=0.3, learning_rate=1.0, expected_customers=7)
    data = Customers(features, goals, mask, np.zeros_like(goals))
    (rows,) = customer_gradients(model, data, loss)
    assert np.allclose(step, -clip_and_sum(rows, 0.3) / 7, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clip", [1e-2, 1.0, 1e3])
def test_a_step_is_the_clipped_sum_over_the_public_batch(clip: float) -> None:
    model, data = Mlp(), customers(9)
    rows = loop_gradients(model, data)
    factors = np.minimum(1, clip / np.maximum(np.linalg.norm(rows, axis=1), 1e-12))
    expected = -(rows * factors[:, None]).sum(axis=0) / (1.0 * 10)
    before = [parameter.clone() for parameter in model.parameters()]
    assert np.allclose(train(model, data, clip_norm=clip), expected, rtol=1e-3, atol=1e-6)
    assert all(map(torch.equal, before, model.parameters())), "the caller's model must not move"


def test_the_divisor_is_public() -> None:
    """Half the customers, the same divisor: half the step. A realised count would hide it."""
    model, data = Linear(), customers(8)
    whole = train(model, data)
    first = train(model, tuple(array[:4] for array in data))
    second = train(model, tuple(array[4:] for array in data))
    assert np.allclose(first + second, whole, atol=1e-6)
    assert np.allclose(train(model, data, expected_customers=20), whole / 2, atol=1e-6)


@pytest.mark.parametrize("repeats", [1, 5])
def test_more_examples_of_a_customer_do_not_raise_its_influence(repeats: int) -> None:
    """Clipping examples instead of customers would let 5 examples count 5 times."""
    x = np.full((1, repeats, 4), 50.0, np.float32)
    data = (x, np.zeros((1, repeats), np.float32), np.ones((1, repeats), bool))
    model = Linear()
    nn.init.zeros_(model.layer.weight)
    step = train(model, data, clip_norm=0.5, expected_customers=1)
    assert np.linalg.norm(step) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("n", [0, 6])
def test_noise_has_the_promised_std_and_no_other(n: int) -> None:
    """With zero gradients, and with nobody there, the step is noise alone."""
    model = Linear(4000)
    data = (np.zeros((n, 2, 4000), np.float32), np.zeros((n, 2), np.float32),
            np.zeros((n, 2), bool))
    step = train(model, data, noise_multiplier=1.5, clip_norm=2.0, learning_rate=0.25,
                 sample_rate=0.5, expected_customers=10, steps=2)
    std = math.sqrt(2) * 0.25 * 1.5 * 2.0 / (0.5 * 10)

    def accepts(claimed: float) -> bool:
        statistic = float((step ** 2).sum()) / claimed ** 2
        return min(chi2.cdf(statistic, 4001), chi2.sf(statistic, 4001)) > RARE / 2

    assert accepts(std)
    assert not accepts(0.8 * std)
    assert not accepts(1.2 * std)
    assert abs(step.mean()) < norm.isf(RARE) * std / math.sqrt(len(step))


def test_noise_and_sampling_do_not_follow_any_seed() -> None:
    model, data = Linear(), customers(50)
    steps = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)
        steps.append([train(model, data, noise_multiplier=1.0),
                      train(model, data, sample_rate=0.5)])
    assert not np.allclose(steps[0][0], steps[1][0])
    assert not np.allclose(steps[0][1], steps[1][1])


@pytest.mark.parametrize("rate", [0.04, 0.16, 0.5])
def test_the_sampling_rate_is_exact(rate: float) -> None:
    """Not 1/ceil(n/b): for rate .16 that would be 1/7."""
    taken: list[int] = []
    n, steps = 1000, 60
    nobody = (np.zeros((n, 1, 4), np.float32), np.zeros((n, 1), np.float32), np.ones((n, 1), bool))
    dp_sgd(Linear(), gradients_of(nobody, sizes=taken), steps=steps, sample_rate=rate,
           noise_multiplier=0.0, clip_norm=1.0, learning_rate=1.0, expected_customers=10)
    assert len(taken) == steps and len(set(taken)) > 1
    assert binomtest(sum(taken), n * steps, rate).pvalue > RARE


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38, -3e38])
def test_a_poisoned_customer_contributes_zero_or_the_clip(poison: float) -> None:
    model, data = Mlp(), customers(6)
    data[2][:] = True
    clean = train(model, tuple(array[1:] for array in data))
    data[0][0, 1, 2] = poison
    poisoned = train(model, data)
    assert np.isfinite(poisoned).all()
    assert np.linalg.norm(poisoned - clean) <= 1.0 / 10 * (1 + 1e-5)
    if not np.isfinite(poison):
        assert np.allclose(poisoned, clean, atol=1e-6)


def test_leaving_one_customer_out_moves_the_sum_by_at_most_the_clip() -> None:
    model, data = Mlp(), customers(6, seed=3)
    whole = train(model, data, clip_norm=0.05)
    for left_out in range(6):
        rest = tuple(np.delete(array, left_out, axis=0) for array in data)
        change = np.linalg.norm(train(model, rest, clip_norm=0.05) - whole)
        assert change <= 0.05 / 10 * (1 + 1e-5)


def test_noise_is_not_drawn_from_a_generator_that_32_bits_seed(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's on the CPU takes 32 bits of any seed: all its noise could be tried."""
    twice = []
    for seed in (7, 7 + (1 << 32)):
        torch.manual_seed(seed)
        twice.append(torch.rand(8))
    assert torch.equal(*twice)

    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("torch drew noise")

    for name in ("normal", "randn", "randn_like", "rand"):
        monkeypatch.setattr(torch, name, drawn)
    read = []
    monkeypatch.setattr(noise.os, "urandom", lambda size, real=os.urandom: read.append(size)
                        or real(size))
    model = Linear(100)
    data = customers(5, f=100)
    train(model, data, noise_multiplier=1.0, steps=3)
    assert sum(read) >= 3 * 8 * (101 + 5)  # 64 bits for every number, of each step


@pytest.mark.parametrize(("size", "multiplier", "clip"), [
    (1, 0.5, 1.0), (40, 4.0, 0.5), (1313, 40.0, 2.0), (1_660_000, 4.0, 1.0), (2**20, 30.0, 0.1)])
def test_the_grid_keeps_the_multiplier(size: int, multiplier: float, clip: float) -> None:
    grid = NoiseGrid.of(size, multiplier, clip)
    sensitivity = clip / grid.step + math.sqrt(size)
    assert grid.std_steps / sensitivity == pytest.approx(multiplier, rel=1e-9)
    added = grid.std / (multiplier * clip)  # beside noise without rounding
    assert 1 <= added <= 2 and (size > 1000 or added < 1.011)
    assert grid.std_steps <= noise.MAX_STD_STEPS


def test_rounding_moves_neighbours_no_further_than_the_grid_says() -> None:
    random = np.random.default_rng(0)
    for size, clip in ((3, 1.0), (400, 0.2)):
        grid = NoiseGrid.of(size, 2.0, clip)
        worst = 0.0
        for _ in range(200):
            one, change = random.normal(size=(2, size))
            change *= clip / np.linalg.norm(change)
            worst = max(worst, np.linalg.norm(np.rint((one + change) / grid.step)
                                              - np.rint(one / grid.step)))
        assert worst <= grid.std_steps / 2.0


def test_what_is_released_lies_on_the_grid() -> None:
    """A sum whose low bits came through under the noise would be read off them."""
    model, data = Linear(20), customers(6, f=20)
    step = train(model, data, noise_multiplier=1.0, expected_customers=1) - 0.0
    grid = NoiseGrid.of(21, 1.0, 1.0)
    steps = step / grid.step
    assert np.abs(steps).max() > 20 and np.allclose(steps, np.rint(steps), atol=0.05)


def test_a_model_too_large_for_its_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="too many for a noise multiplier of 40"):
        NoiseGrid.of(1_660_000, 40.0, 1.0)
