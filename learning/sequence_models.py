"""Small models that read an example's history: a temporal convolution and a gated recurrent unit.

Both consist of nothing but ``nn.Linear`` layers on (..., steps, features). So the gradient of each
customer is right under ``torch.func.vmap`` as well as under Opacus, whose hooks know how to sum a
Linear layer's gradient over the examples of a customer, but would take each example for a customer
in Conv1d, and give wrong gradients for nn.GRU.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from learning.customers import InputShape


class TCN(nn.Module):
    """(..., f) features -> (..., o). Causal convolutions over the history (Bai, Kolter and
    Koltun, arXiv 1803.01271, without residual blocks: two levels do not need them), level i with
    dilation ``kernel``^i, tanh between; the last step's ``hidden`` numbers go to the head."""

    def __init__(self, shape: InputShape, hidden: int, kernel: int, levels: int) -> None:
        super().__init__()
        self.shape, self.kernel, self.sees = shape, kernel, kernel**levels
        widths = [shape.channels, *[hidden] * levels]
        self.levels = nn.ModuleList(
            nn.Linear(kernel * before, after) for before, after in pairwise(widths))
        self.head = Head(shape, hidden)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # Of each level only the steps are computed that the last step of the next one looks at.
        # Newest first, so that they are every kernel-th from the beginning.
        state = self.shape.history(features)[..., -self.sees:, :].flip(-2)
        for level in self.levels:
            state = torch.tanh(level(self._windows(state)))
        return self.head(features, state[..., 0, :])

    def _windows(self, state: torch.Tensor) -> torch.Tensor:
        """(..., s, c) -> (..., ceil(s / kernel), kernel * c): each ``kernel`` steps side by side,
        zeros before the first."""
        missing = -state.shape[-2] % self.kernel
        whole = torch.nn.functional.pad(state, (0, 0, 0, missing))
        return whole.unflatten(-2, (-1, self.kernel)).flatten(-2)


class GRU(nn.Module):
    """(..., f) features -> (..., o). One gated recurrent unit over the history (Cho et al., arXiv
    1406.1078, in the form of torch.nn.GRU); its last state goes to the head."""

    def __init__(self, shape: InputShape, hidden: int) -> None:
        super().__init__()
        self.shape, self.hidden = shape, hidden
        self.inputs = nn.Linear(shape.channels, 3 * hidden)
        self.states = nn.Linear(hidden, 3 * hidden)
        self.head = Head(shape, hidden)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        history = self.shape.history(features)
        # Zeros that hang on the features: Opacus' hooks see a layer only where gradients flow in.
        first = history[..., 0, :1]
        state = (first - first).expand(*first.shape[:-1], self.hidden)
        for step in self.inputs(history).unbind(-2):
            reset, update, new = step.chunk(3, dim=-1)
            old_reset, old_update, old_new = self.states(state).chunk(3, dim=-1)
            keep = torch.sigmoid(update + old_update)
            candidate = torch.tanh(new + torch.sigmoid(reset + old_reset) * old_new)
            state = keep * state + (1 - keep) * candidate
        return self.head(features, state)


class Head(nn.Module):
    """From what the history (all outputs', or its own) left, and the hand-made features of each
    output, to that output: the same weights for every output. All zero at the start, so the first
    answer is 0."""

    def __init__(self, shape: InputShape, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.line = nn.Linear(hidden + shape.per_output, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, features: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        """(..., f), (..., series, hidden) -> (..., o)."""
        groups = self.shape.groups(features)
        own = summary.expand(*groups.shape[:-1], summary.shape[-1])
        return self.line(torch.cat([own, groups], dim=-1)).squeeze(-1)


def start_values(model: nn.Module, seed: int) -> None:
    """Public start values of all Linear layers but the head's: normal, std 1/sqrt(inputs), and
    zero biases. The same at every party for one seed."""
    random = torch.Generator().manual_seed(seed)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and not name.startswith("head"):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=random)
            nn.init.zeros_(layer.bias)
