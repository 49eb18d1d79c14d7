"""Gradients, local trainings and losses, customer by customer.

A customer's loss is the mean over its examples, so heavy shoppers weigh as much as light ones.
Customers without examples have gradient 0 and loss NaN. Nothing is clipped here: callers clip
(privacy.clipping) and treat non-finite rows as 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap

from learning.customers import Customers
from learning.losses import Loss
from learning.models import PerOutput

_GRADIENT_VALUES = 2**23
"""Numbers of all the gradients worked on at once: at most 32 MB, which caches still help."""
_FEATURE_VALUES = 2**20
"""Features worked on at once, padding among them. Both bound memory and change no result."""
_State = dict[str, torch.Tensor]
_Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def scores(model: nn.Module, customers: Customers) -> NDArray[np.float32]:
    """(n, e, o) comparable with the targets; padded places hold what the model says of zeros."""
    return customers.scores(_outputs(model, customers))


def customer_losses(model: nn.Module, customers: Customers, loss: Loss) -> NDArray[np.float32]:
    """(n,) mean loss of each customer; NaN without examples."""
    losses = [np.zeros(0, np.float32)]
    with torch.no_grad():
        for features, goals, mask in _chunks(customers, len(customers)):
            own = loss(model(features), goals) * mask
            losses.append((own.sum(1) / mask.sum(1)).numpy())
    return np.concatenate(losses)


def customer_gradients(
    model: nn.Module, customers: Customers, loss: Loss, chunk: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield (c, d): each customer's gradient of its mean loss, at most ``chunk`` customers at a
    time (None: as many as memory likes)."""
    chunk = chunk or _fitting(model)
    if isinstance(model, PerOutput) and len(model.layers) == 1:
        yield from _linear_gradients(model, customers, loss, chunk)
        return
    per_customer = vmap(grad(_loss_of(model, loss)), in_dims=(None, 0, 0, 0))
    state = _state(model)
    for batch in _chunks(customers, chunk):
        yield _flat(per_customer(state, *batch))


def customer_deltas(
    model: nn.Module, customers: Customers, loss: Loss, steps: int, learning_rate: float,
    proximal: float = 0.0, chunk: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield (c, d): what ``steps`` full-batch gradient steps on one customer's own examples,
    starting from ``model``, change in the parameters. ``proximal``: mu of FedProx (Li et al.
    2020): the loss gains mu / 2 times the squared distance from ``model``."""
    gradient = grad(_loss_of(model, loss))
    start = _state(model)

    def delta(*batch: torch.Tensor) -> _State:
        state = start
        for _ in range(steps):
            slope = gradient(state, *batch)
            state = {name: value - learning_rate * (
                slope[name] + proximal * (value - start[name])) for name, value in state.items()}
        return {name: value - start[name] for name, value in state.items()}

    for batch in _chunks(customers, chunk or _fitting(model)):
        yield _flat(vmap(delta)(*batch))


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


def _outputs(model: nn.Module, customers: Customers) -> NDArray[np.float32]:
    """(n, e, o)."""
    if not len(customers):
        return np.zeros(customers.targets.shape, np.float32)
    step = max(1, _FEATURE_VALUES // max(1, customers.features[0].size))
    features = _tensor(customers.features)
    with torch.no_grad():
        return torch.cat([model(part) for part in features.split(step)]).numpy()


def _linear_gradients(
    model: PerOutput, customers: Customers, loss: Loss, chunk: int
) -> Iterator[NDArray[np.float32]]:
    """Closed form: mean over examples of the sum over outputs of slope * (features, 1)."""
    with torch.no_grad():
        for features, goals, mask in _chunks(customers, chunk):
            slope = loss.slope(model(features), goals) * mask.unsqueeze(-1)
            slope = slope.flatten(1) / mask.sum(1, keepdim=True).clamp(min=1)
            inputs = model.shape.groups(features).flatten(1, 2)
            slopes = torch.bmm(slope.unsqueeze(1), inputs).squeeze(1)
            yield torch.cat([slopes, slope.sum(1, keepdim=True)], dim=1).numpy()


def _loss_of(model: nn.Module, loss: Loss) -> Callable[..., torch.Tensor]:
    """Mean loss of one customer: (state, (e, f), (e, o), (e,)) -> scalar."""

    def mean(state: _State, features: torch.Tensor, goals: torch.Tensor,
             mask: torch.Tensor) -> torch.Tensor:
        losses = loss(functional_call(model, state, (features,)), goals)
        return (losses * mask).sum() / mask.sum().clamp(min=1)

    return mean


def _state(model: nn.Module) -> _State:
    return {name: value.detach() for name, value in model.named_parameters()}


def _flat(state: _State) -> NDArray[np.float32]:
    """Per-customer tensors (c, ...) in parameter order -> (c, d)."""
    return torch.cat([value.flatten(1) for value in state.values()], dim=1).detach().numpy()


def _chunks(customers: Customers, chunk: int) -> Iterator[_Batch]:
    """Views of at most ``chunk`` customers, without the places at the end that all of them have
    padded: few are left where customers with about as many examples follow each other
    (Customers.fewest_first)."""
    places = customers.mask.shape[1]
    used = np.where(customers.mask, np.arange(1, places + 1), 1).max(1, initial=1)
    most = max(1, _FEATURE_VALUES // max(1, customers.features.shape[-1]))  # examples
    start = 0
    while start < len(customers):
        count = min(chunk, len(customers) - start)
        while count > 1 and count * used[start:start + count].max() > most:
            count //= 2
        rows, width = slice(start, start + count), slice(0, used[start:start + count].max())
        yield (_tensor(customers.features[rows, width]), _tensor(customers.goals[rows, width]),
               _tensor(customers.mask[rows, width]).float())
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
