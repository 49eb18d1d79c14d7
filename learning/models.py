"""The models a federation can train, their public start values, and models as flat vectors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema import ModelConfig


class Logits(nn.Module):
    """(..., f) features -> (...,) logits."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features).squeeze(-1)


def build_model(config: ModelConfig, features: int, seed: int) -> nn.Module:
    """The same start values at every party for one seed; nothing in them depends on data.

    logistic: f + 1 parameters, all zero. mlp: one hidden layer of tanh units.
    """
    if config.name == "logistic":
        model = Logits(nn.Sequential(nn.Linear(features, 1)))
        nn.init.zeros_(model.layers[0].weight)
        nn.init.zeros_(model.layers[0].bias)
        return model
    hidden, output = nn.Linear(features, config.hidden), nn.Linear(config.hidden, 1)
    random = torch.Generator().manual_seed(seed)
    nn.init.normal_(hidden.weight, std=features**-0.5, generator=random)
    nn.init.normal_(output.weight, std=config.hidden**-0.5, generator=random)
    nn.init.zeros_(hidden.bias)
    nn.init.zeros_(output.bias)
    return Logits(nn.Sequential(hidden, nn.Tanh(), output))


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
