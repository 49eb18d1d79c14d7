"""The models a federation can train, their public start values, and models as flat vectors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema import InvalidConfig, ModelConfig
from learning.customers import InputShape
from learning.sequence_models import GRU, TCN, start_values


class PerOutput(nn.Module):
    """(..., f) features -> (..., o): the same layers on the hand-made features of each output.
    A history is not read."""

    def __init__(self, shape: InputShape, layers: nn.Sequential) -> None:
        super().__init__()
        self.shape = shape
        self.layers = layers

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(self.shape.groups(features)).squeeze(-1)


def build_model(config: ModelConfig, shape: InputShape, seed: int) -> nn.Module:
    """The same start values at every party for one seed; nothing in them depends on data.

    linear: per_output + 1 parameters, all zero: its first answer is 0. mlp: one hidden layer of
    tanh units. tcn, dpgru: read the history too (learning.sequence_models), and first answer 0.
    Raises InvalidConfig for a model that reads a history where the examples carry none.
    """
    if config.reads_history:
        if not shape.steps:
            raise InvalidConfig("model", f"{config.name} reads a history, and these examples have "
                                "none; use model=linear or model=mlp")
        sequence = (GRU(shape, config.hidden) if config.name == "dpgru" else
                    TCN(shape, config.hidden, config.kernel, config.levels))
        start_values(sequence, seed)
        return sequence
    features = shape.per_output
    if config.name == "linear":
        linear = nn.Linear(features, 1)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return PerOutput(shape, nn.Sequential(linear))
    hidden, output = nn.Linear(features, config.hidden), nn.Linear(config.hidden, 1)
    random = torch.Generator().manual_seed(seed)
    nn.init.normal_(hidden.weight, std=features**-0.5, generator=random)
    nn.init.normal_(output.weight, std=config.hidden**-0.5, generator=random)
    nn.init.zeros_(hidden.bias)
    nn.init.zeros_(output.bias)
    return PerOutput(shape, nn.Sequential(hidden, nn.Tanh(), output))


def get_flat(model: nn.Module) -> NDArray[np.float64]:
    """All parameters as one vector (d,), in the order of ``model.parameters()``."""
    parts = [parameter.detach().reshape(-1) for parameter in model.parameters()]
    return torch.cat(parts).numpy().astype(np.float64)


def set_flat(model: nn.Module, vector: NDArray[np.floating]) -> None:
    """Write (d,) into the parameters of ``model``. Raises ValueError on another length."""
    parameters = list(model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,):
        raise ValueError(f"model has {size} parameters, vector has shape {vector.shape}")
    offset = 0
    with torch.no_grad():
        for parameter in parameters:
            part = np.array(vector[offset:offset + parameter.numel()], dtype=np.float32)
            parameter.copy_(torch.from_numpy(part).view_as(parameter))
            offset += parameter.numel()
