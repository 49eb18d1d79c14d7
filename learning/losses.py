"""What training minimises: the loss of one example, and its slope for closed-form gradients.

Losses are frozen dataclasses: equal at every party, picklable, and plain tensor arithmetic, so
they work under ``torch.func``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss


class Loss(Protocol):
    """``clip``: public bound to which a customer's mean loss is clipped before it is released."""

    clip: float

    def __call__(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        """(..., o), (..., o) -> (...,): the mean over the outputs of each example."""

    def slope(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        """(..., o), (..., o) -> (..., o): derivative of the loss by each output."""


@dataclass(frozen=True)
class CrossEntropy:
    """Of logits against goals 0 or 1."""

    clip: float = 2.0

    def __call__(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs, goals, reduction="none").mean(-1)

    def slope(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        return (torch.sigmoid(outputs) - goals) / outputs.shape[-1]


@dataclass(frozen=True)
class Huber:
    """Squared below ``bend``, then linear: near the absolute error, which MAE judges by, and
    smooth at its minimum. Bounded slope: one wild reading cannot rule a customer's gradient."""

    bend: float = 0.25
    clip: float = 1.0

    def __call__(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        return huber_loss(outputs, goals, reduction="none", delta=self.bend).mean(-1) / self.bend

    def slope(self, outputs: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        error = (outputs - goals).clamp(-self.bend, self.bend)
        return error / (self.bend * outputs.shape[-1])
