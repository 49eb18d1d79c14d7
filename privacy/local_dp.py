"""Local training by Opacus DP-SGD where one sample is one customer.

Full noise at the partner: the result is private by itself and needs trust in nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from privacy.clipping import clip_and_sum
from privacy.local_grid import NoiseGrid
from privacy.noise import NoiseSource

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(b, e, o) outputs and (b, e, o) goals -> (b, e)."""


def dp_sgd(model: nn.Module, loss: Loss, features: NDArray[np.float32],
           goals: NDArray[np.float32], mask: NDArray[np.bool_], *, steps: int,
           sample_rate: float, noise_multiplier: float, clip_norm: float, learning_rate: float,
           expected_customers: int) -> NDArray[np.float64]:
    """features (n, e, f), goals (n, e, o) and mask (n, e) of n customers -> the flat change (d,)
    of the model's parameters, in their order. ``model`` maps (..., f) to (..., o) and stays as
    it is.

    Guarantee: ``steps`` Poisson-sampled Gaussian mechanisms with exactly ``sample_rate`` and
    ``noise_multiplier``, neighbours differ by one customer. A customer's loss is the mean over
    its masked examples; its gradient is clipped to ``clip_norm``, and counts zero when it is not
    finite. The divisor is the public ``sample_rate * expected_customers``, never the realised
    batch; an empty batch releases noise alone. Sampling and noise are the operating system's
    randomness, drawn anew for every number (:class:`NoiseGrid`). Raises ValueError for a model too
    large for its noise.
    """
    trained = GradSampleModule(copy.deepcopy(model).train(), loss_reduction="sum")
    optimiser = _optimiser(trained, noise_multiplier, clip_norm, learning_rate,
                           sample_rate * expected_customers)
    start = _flat(trained)
    source = NoiseSource()
    for _ in range(steps):
        chosen = source.uniform(len(features)) < sample_rate
        batch = (torch.from_numpy(array[chosen]) for array in (features, goals, mask))
        _step(trained, optimiser, loss, *batch)
    return _flat(trained) - start


class _GridOptimiser(DPOptimizer):
    """Opacus' optimiser with sums in float64 and noise of the operating system's randomness.

    Its own noise comes from a torch generator, of which the CPU's takes 32 bits of any seed: who
    sees one update could try them all. Mersenne Twister is linear besides, so that noise on most
    coordinates gives away the rest.
    """

    source = NoiseSource()

    def clip_and_accumulate(self) -> None:
        rows = np.concatenate([sample.flatten(1).numpy() for sample in self.grad_samples], axis=1)
        self._total = clip_and_sum(rows, self.max_grad_norm)

    def add_noise(self) -> None:
        total = self._total
        if self.noise_multiplier:
            grid = NoiseGrid.of(total.size, self.noise_multiplier, self.max_grad_norm)
            noise = self.source.discrete_gaussian(grid.std_steps, total.size)
            total = (np.rint(total / grid.step) + noise) * grid.step
        ends = np.cumsum([parameter.numel() for parameter in self.params])
        for parameter, part in zip(self.params, np.split(total, ends[:-1]), strict=True):
            parameter.grad = torch.from_numpy(part).to(parameter.dtype).view_as(parameter)


def _optimiser(module: GradSampleModule, noise_multiplier: float, clip_norm: float,
               learning_rate: float, expected_batch: float) -> DPOptimizer:
    return _GridOptimiser(
        torch.optim.SGD(module.parameters(), lr=learning_rate),
        noise_multiplier=noise_multiplier, max_grad_norm=clip_norm,
        expected_batch_size=expected_batch)


def _step(module: GradSampleModule, optimiser: DPOptimizer, loss: Loss, features: torch.Tensor,
          goals: torch.Tensor, mask: torch.Tensor) -> None:
    optimiser.zero_grad()
    if len(features):
        # Opacus' hooks fire on gradients by inputs too: without one torch warns at each step.
        features.requires_grad_()
        customer_losses(module, loss, features, goals, mask).sum().backward()
        _drop_non_finite(module)
    else:
        for parameter in module.parameters():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
    optimiser.step()


def customer_losses(model: nn.Module, loss: Loss, features: torch.Tensor, goals: torch.Tensor,
                    mask: torch.Tensor) -> torch.Tensor:
    """(b, e, f), (b, e, o), (b, e) -> (b,): mean loss over each customer's examples, 0 without
    any."""
    losses = loss(model(features), goals)
    return torch.where(mask, losses, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _drop_non_finite(module: GradSampleModule) -> None:
    """Zero the gradient of a customer in whom any value is not finite or whose norm overflows
    float32."""
    samples = [parameter.grad_sample for parameter in module.parameters()]
    squares = torch.stack([sample.flatten(1).square().sum(dim=1) for sample in samples])
    broken = ~torch.isfinite(squares.sum(dim=0))
    for sample in samples:
        sample[broken] = 0.0


def _flat(module: nn.Module) -> NDArray[np.float64]:
    return np.concatenate([parameter.detach().numpy().astype(np.float64).ravel()
                           for parameter in module.parameters()])
