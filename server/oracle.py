"""What only a simulation may see: exact metrics over every partner's customers.

Nothing here is private. It is logged under ``oracle/`` and exists only where the configuration
names the partners' files, which a deployment's server does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from conf.schema import Config
from learning.evaluation import evaluate, exact, fit_baselines
from learning.models import set_flat
from learning.registry import load_partner, make_model, make_task
from learning.results import Comparison
from learning.task import PartnerData, Task
from learning.training import customer_losses, scores


@dataclass(frozen=True)
class Oracle:
    """All partners' data side by side."""

    config: Config
    task: Task
    data: Mapping[str, PartnerData]

    @classmethod
    def of(cls, config: Config) -> Oracle | None:
        """None where the configuration names no site files (a deployment)."""
        if not config.federation.sites:
            return None
        sites = config.federation.sites
        return cls(config, make_task(config),
                   {name: load_partner(config, sites[name]) for name in sorted(sites)})

    def validate(self, vector: NDArray[np.float64]) -> dict[str, float]:
        """Exact validation metric and training loss of one model (d,)."""
        model = make_model(self.config)
        set_flat(model, vector)
        losses = [customer_losses(model, data.train, self.task.loss)
                  for data in self.data.values()]
        return {
            self._name(): self._metric(
                {name: scores(model, data.validation) for name, data in self.data.items()}),
            "oracle/train/loss": float(np.nanmean(np.concatenate(losses))),
        }

    def validate_naive(self) -> dict[str, float]:
        naive = {name: data.validation.naive for name, data in self.data.items()}
        return {self._name("_naive"): self._metric(naive)}

    def validate_baselines(
        self, local: Mapping[str, nn.Module], pooled: nn.Module
    ) -> dict[str, float]:
        each = {name: scores(local[name], data.validation) for name, data in self.data.items()}
        one = {name: scores(pooled, data.validation) for name, data in self.data.items()}
        return {self._name("_local"): self._metric(each),
                self._name("_pooled"): self._metric(one)}

    def fit_baselines(self) -> tuple[dict[str, nn.Module], nn.Module]:
        return fit_baselines(self.data, self.config.model, self.task, self.config.seed)

    def compare(
        self, vector: NDArray[np.float64], local: Mapping[str, nn.Module], pooled: nn.Module
    ) -> tuple[Comparison, ...]:
        """The final test: every partner, all, held out; with bootstrap intervals."""
        federated = make_model(self.config)
        set_flat(federated, vector)
        return evaluate(self.data, federated, local, pooled, self.task.metric,
                        seed=self.config.seed)

    def _name(self, ending: str = "") -> str:
        return f"oracle/val/{self.task.metric.name}{ending}"

    def _metric(self, score: Mapping[str, NDArray[np.floating]]) -> float:
        return exact(self.task.metric, [(data.validation, score[name])
                                        for name, data in self.data.items()])
