"""Gradients, local trainings and losses, customer by customer.

A customer's loss is the mean over its examples, so heavy shoppers weigh as much as light ones.
Customers without examples have gradient 0 and loss NaN. Nothing is clipped here: callers clip
(privacy.clipping) and treat non-finite rows as 0.

Guarantee: a customer's row is the same to the bit whoever else is there, in which order and in
which chunk, for every model, be its values infinite, huge or no numbers at all
(:mod:`learning.exact` says why; tests/adversary/test_rows.py hunts for a counterexample).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from learning.customers import Customers
from learning.exact import Exact, bits_for, rounded, states_of, total
from learning.losses import Loss
from learning.models import PerOutput

_GRADIENT_VALUES = 2**22
"""Numbers of all the gradients worked on at once: at most 32 MB, which caches still help."""
_FEATURE_VALUES = 2**20
"""Features worked on at once, padding among them. Both bound memory and change no result."""


@dataclass(frozen=True)
class _Batch:
    """c customers, trimmed to the most examples that one of them has. features: (c, e, f) float64
    on their grid (learning.customers); goals: (c, e, o); mask: (c, e); counts: (c,) examples of
    each."""

    features: torch.Tensor
    goals: torch.Tensor
    mask: torch.Tensor
    counts: torch.Tensor

    @property
    def filled(self) -> torch.Tensor:
        """(c, e, f) where a padded place repeats the customer's first example: what a model makes
        of zeros might be no number where what it makes of the customer's own examples is one."""
        if bool(self.mask.all()):
            return self.features
        rows = torch.arange(len(self.mask))
        first = self.features[rows, self.mask.to(torch.uint8).argmax(1)]
        return torch.where(self.mask.unsqueeze(-1), self.features, torch.where(
            self.counts.unsqueeze(1) > 0, first, 0.0).unsqueeze(1))

    def losses(self, outputs: torch.Tensor, loss: Loss) -> NDArray[np.float32]:
        """(c,) means over each customer's own examples; NaN without any."""
        with torch.no_grad(), Exact(self.counts):
            each = loss(outputs, self.goals)
        own = torch.where(self.mask, each, 0.0)
        return (total(own, (1,), self.counts.view(-1, 1)) / self.counts).float().numpy()

    def slopes(self, outputs: torch.Tensor, loss: Loss) -> torch.Tensor:
        """(c, e, o): derivative of the sum of the customer's losses by each output."""
        with torch.no_grad(), Exact(self.counts):
            slopes = loss.slope(outputs.detach(), self.goals)
        return torch.where(self.mask.unsqueeze(-1), slopes, 0.0)


def scores(model: nn.Module, customers: Customers) -> NDArray[np.float32]:
    """(n, e, o) comparable with the targets. Padded places hold numbers without a meaning."""
    outputs = np.zeros(customers.targets.shape, np.float32)
    done = 0
    for batch in _batches(customers, len(customers)):
        found = _outputs(model, batch).float().numpy()
        outputs[done:done + len(found), :found.shape[1]] = found
        done += len(found)
    return customers.scores(outputs)


def customer_losses(model: nn.Module, customers: Customers, loss: Loss) -> NDArray[np.float32]:
    """(n,) mean loss of each customer; NaN without examples."""
    losses = [np.zeros(0, np.float32)]
    for batch in _batches(customers, len(customers)):
        losses.append(batch.losses(_outputs(model, batch), loss))
    return np.concatenate(losses)


def customer_gradients(
    model: nn.Module, customers: Customers, loss: Loss, chunk: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield (c, d): each customer's gradient of its mean loss, at most ``chunk`` customers at a
    time (None: as many as memory likes). Raises learning.exact.NotExact for a model in which
    customers could reach each other."""
    for _, _, gradient in _gradients(model, customers, loss, chunk):
        yield _rows(gradient)


def gradients_and_losses(
    model: nn.Module, customers: Customers, loss: Loss
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield (c, d) and (c,): :func:`customer_gradients` and :func:`customer_losses` in one."""
    for batch, outputs, gradient in _gradients(model, customers, loss, None):
        yield _rows(gradient), batch.losses(outputs, loss)


def customer_deltas(
    model: nn.Module, customers: Customers, loss: Loss, steps: int, learning_rate: float,
    proximal: float = 0.0, chunk: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield (c, d): what ``steps`` full-batch gradient steps on one customer's own examples,
    starting from ``model``, change in the parameters. ``proximal``: mu of FedProx (Li et al.
    2020): the loss gains mu / 2 times the squared distance from ``model``. Raises NotExact."""
    for batch in _batches(customers, chunk or _fitting(model)):
        start = states_of(model, len(batch.counts))
        state = start
        for _ in range(steps):
            _, slope = _gradient(model, state, batch, loss)
            state = {name: value - learning_rate * (
                slope[name] + proximal * (value - start[name])) for name, value in state.items()}
        yield _rows({name: value - start[name] for name, value in state.items()})


def train_locally(
    model: nn.Module, customers: Customers, loss: Loss, weight_decay: float,
    iterations: int = 200,
) -> nn.Module:
    """A copy of ``model`` trained to the minimum (L-BFGS) of the sum of customer losses plus
    ``weight_decay`` / 2 times the squared weights (biases are free): the fewer the customers,
    the more the start values' simplicity counts. No privacy: baselines only."""
    trained = copy.deepcopy(model)
    useful = customers.take(np.flatnonzero(customers.mask.any(1)))
    if not len(useful):
        return trained
    rows = useful.mask
    features, goals = _tensor(useful.features[rows]), _tensor(useful.goals[rows])
    counts = rows.sum(1)
    weight = _tensor(np.repeat(1.0 / (counts * len(useful)), counts).astype(np.float32))
    decay = weight_decay / len(useful)
    weights = [parameter for parameter in trained.parameters() if parameter.ndim > 1]
    optimiser = torch.optim.LBFGS(trained.parameters(), max_iter=iterations, history_size=20,
                                  tolerance_grad=1e-6, tolerance_change=1e-9,
                                  line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        value = (loss(trained(features), goals) * weight).sum()
        value = value + decay / 2 * sum((part**2).sum() for part in weights)
        value.backward()
        return value

    optimiser.step(objective)
    return trained


def _fitting(model: nn.Module) -> int:
    size = sum(parameter.numel() for parameter in model.parameters())
    return max(1, _GRADIENT_VALUES // size)


def _outputs(model: nn.Module, batch: _Batch) -> torch.Tensor:
    """(c, e, o)."""
    if isinstance(model, PerOutput) and len(model.layers) == 1:
        return _linear_outputs(model, batch.features)
    state = states_of(model, len(batch.counts))
    features = batch.filled
    with torch.no_grad(), Exact(batch.counts):
        return functional_call(model, state, (features,))


def _gradients(
    model: nn.Module, customers: Customers, loss: Loss, chunk: int | None
) -> Iterator[tuple[_Batch, torch.Tensor, dict[str, torch.Tensor]]]:
    """Of each batch: outputs (c, e, o), and parameter name -> gradients (c, ...)."""
    for batch in _batches(customers, chunk or _fitting(model)):
        if isinstance(model, PerOutput) and len(model.layers) == 1:
            yield batch, *_linear_gradient(model, batch, loss)
        else:
            yield batch, *_gradient(model, states_of(model, len(batch.counts)), batch, loss)


def _gradient(model: nn.Module, state: dict[str, torch.Tensor], batch: _Batch,
              loss: Loss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Outputs, and parameter name -> (c, ...): of each customer's mean loss, at its own
    parameters."""
    leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
    features = batch.filled
    with Exact(batch.counts):
        outputs = functional_call(model, leaves, (features,))
    parts = torch.autograd.grad(outputs, list(leaves.values()), batch.slopes(outputs, loss))
    return outputs.detach(), {name: _per_example(part, batch)
                              for name, part in zip(leaves, parts, strict=True)}


def _linear_gradient(model: PerOutput, batch: _Batch,
                     loss: Loss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Closed form: mean over examples of the sum over outputs of slope * (features, 1). Features
    on their grid need no rounding, and zeros in padded places, without the model, harm nobody."""
    outputs = _linear_outputs(model, batch.features)
    slopes = batch.slopes(outputs, loss).flatten(1)
    terms = (batch.counts * model.shape.outputs).view(-1, 1)
    integers, scale = rounded(slopes, (1,), bits_for(terms))
    inputs = model.shape.groups(batch.features).flatten(1, 2)
    weight = torch.bmm(integers.unsqueeze(1), inputs).squeeze(1) * scale
    bias = total(slopes, (1,), terms)
    return outputs, {"weight": _per_example(weight, batch),
                     "bias": _per_example(bias.unsqueeze(1), batch)}


def _linear_outputs(model: PerOutput, features: torch.Tensor) -> torch.Tensor:
    """(c, e, f) features on their grid -> (c, e, o)."""
    weight, bias = (parameter.detach().double() for parameter in model.parameters())
    inputs = model.shape.groups(features)
    integers, scale = rounded(weight[0], (0,), bits_for(inputs.shape[-1]))
    return (inputs @ integers) * scale + bias


def _per_example(values: torch.Tensor, batch: _Batch) -> torch.Tensor:
    """(c, ...) sums over a customer's examples -> means; 0 for a customer without any."""
    counts = batch.counts.view(-1, *[1] * (values.ndim - 1))
    return torch.where(counts > 0, values / counts.clamp(min=1), 0.0)


def _rows(state: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    """Per-customer tensors (c, ...) in parameter order -> (c, d). Adding 0 turns -0 into 0."""
    return (torch.cat([value.flatten(1) for value in state.values()], dim=1) + 0.0
            ).detach().float().numpy()


def _batches(customers: Customers, chunk: int) -> Iterator[_Batch]:
    """At most ``chunk`` customers at a time, without the places at the end that all of them have
    padded: few are left where customers with about as many examples follow each other
    (CustomerParts.fewest_first)."""
    places = customers.mask.shape[1]
    used = np.where(customers.mask, np.arange(1, places + 1), 1).max(1, initial=1)
    most = max(1, _FEATURE_VALUES // max(1, customers.features.shape[-1]))  # examples
    start = 0
    while start < len(customers):
        count = min(chunk, len(customers) - start)
        while count > 1 and count * used[start:start + count].max() > most:
            count //= 2
        rows, width = slice(start, start + count), slice(0, used[start:start + count].max())
        mask = customers.mask[rows, width]
        yield _Batch(_tensor(customers.grid[rows, width]).double(),
                     _tensor(customers.goals[rows, width]).double(), _tensor(mask),
                     torch.from_numpy(mask.sum(1).astype(np.float64)))
        start += count


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    """Shares memory. Nothing here writes to it, so a read-only array passes without a copy."""
    return torch.from_numpy(np.asarray(_View(array)))


class _View:
    """The same memory, presented as writable: PyTorch has no read-only tensors, and warns."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
