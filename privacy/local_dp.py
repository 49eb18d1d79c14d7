"""Local training by DP-SGD where one sample is one customer, on Opacus' optimiser.

Full noise at the partner: the result is private by itself and needs trust in nobody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import nn

from privacy.clipping import clip_and_sum
from privacy.local_grid import NoiseGrid
from privacy.noise import NoiseSource

Sample = Callable[[int], NDArray[np.bool_]]
"""n -> (n,) which of so many customers take part in a step: to be asked once for each customer."""
Gradients = Callable[[nn.Module, Sample], Iterable[NDArray[np.floating]]]
"""At a model, of the customers that take part: (c, d) rows, each a function of its customer alone
(``learning.training.customer_gradients``)."""


def dp_sgd(model: nn.Module, gradients: Gradients, *, steps: int, sample_rate: float,
           noise_multiplier: float, clip_norm: float, learning_rate: float,
           expected_customers: int) -> NDArray[np.float64]:
    """The flat change (d,) of the parameters of ``model``, in their order; the model itself stays.

    Guarantee: ``steps`` Poisson-sampled Gaussian mechanisms with exactly ``sample_rate`` and
    ``noise_multiplier``, neighbours differ by one customer. A customer's row is clipped to
    ``clip_norm``, and counts zero when it is not finite; it changes no other customer's. The
    divisor is the public ``sample_rate * expected_customers``, never the realised batch; an empty
    batch releases noise alone. Sampling and noise are the operating system's randomness, drawn anew
    for every number (:class:`NoiseGrid`). Raises ValueError for a model too large for its noise.
    """
    trained, source = copy.deepcopy(model).train(), NoiseSource()
    optimiser = _GridOptimiser(
        torch.optim.SGD(trained.parameters(), lr=learning_rate),
        noise_multiplier=noise_multiplier, max_grad_norm=clip_norm,
        expected_batch_size=sample_rate * expected_customers)
    start = _flat(trained)

    def sample(customers: int) -> NDArray[np.bool_]:
        return source.uniform(customers) < sample_rate

    for _ in range(steps):
        total = sum((clip_and_sum(rows, clip_norm) for rows in gradients(trained, sample)),
                    start=np.zeros(start.size))
        optimiser.step_along(total)
    return _flat(trained) - start


class _GridOptimiser(DPOptimizer):
    """Opacus' optimiser along sums that are clipped already, with noise of the operating system's
    randomness.

    Its own noise comes from a torch generator, of which the CPU's takes 32 bits of any seed: who
    sees one update could try them all. Mersenne Twister is linear besides, so that noise on most
    coordinates gives away the rest. Its own per-sample gradients come from batched products in
    which a customer's last bits depend on who else is there.
    """

    source = NoiseSource()

    def step_along(self, total: NDArray[np.float64]) -> None:
        """One step: noise on ``total`` (d,), the public divisor, the wrapped optimiser."""
        self._total = total
        for parameter in self.params:  # what Opacus looks for; none of it is read
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        self.step()

    def clip_and_accumulate(self) -> None:
        pass

    def add_noise(self) -> None:
        total = self._total
        if self.noise_multiplier:
            grid = NoiseGrid.of(total.size, self.noise_multiplier, self.max_grad_norm)
            noise = self.source.discrete_gaussian(grid.std_steps, total.size)
            total = (np.rint(total / grid.step) + noise) * grid.step
        ends = np.cumsum([parameter.numel() for parameter in self.params])
        for parameter, part in zip(self.params, np.split(total, ends[:-1]), strict=True):
            parameter.grad = torch.from_numpy(part).to(parameter.dtype).view_as(parameter)


def _flat(module: nn.Module) -> NDArray[np.float64]:
    return np.concatenate([parameter.detach().numpy().astype(np.float64).ravel()
                           for parameter in module.parameters()])
