"""What only a simulation may see: exact metrics over every partner's customers.

Nothing here is private. It is logged under ``oracle/`` and exists only where the configuration
names the partners' files, which a deployment's server does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from conf.schema import Config
from learning.customers import Customers, PartnerData
from learning.evaluation import evaluate, exact, fit_baselines
from learning.models import set_flat
from learning.registry import head_mask, load_partner, make_model, make_task
from learning.results import Comparison
from learning.task import Task
from learning.training import customer_losses, scores
from privacy.clipping import clip_and_sum
from strategies.optimiser import ServerState

Heads = Callable[[str, int], Mapping[str, ServerState]]
"""(run, round) -> each partner's head after it. Only a simulation, which is every party at once,
can read them."""


@dataclass(frozen=True)
class Oracle:
    """All partners' data side by side. ``heads``: of this run, where models have some."""

    config: Config
    task: Task
    data: Mapping[str, PartnerData]
    heads: Callable[[int], Mapping[str, ServerState]]

    @classmethod
    def of(cls, config: Config, run: str, heads: Heads | None) -> Oracle | None:
        """None where the configuration names no site files (a deployment), or where models have
        heads that nobody here can read."""
        if not config.federation.sites or (heads is None and config.model.head != "shared"):
            return None
        sites = config.federation.sites
        return cls(config, make_task(config),
                   {name: load_partner(config, sites[name], name) for name in sorted(sites)},
                   lambda number: heads(run, number) if heads else {})

    def models(self, shared: NDArray[np.float64], number: int, *,
               final: bool = False) -> dict[str, nn.Module]:
        """Partner -> the model (d - k,) that all share after round ``number``, with its own head;
        final: heads averaged over the last rounds, as the shared part is."""
        if self.config.model.head == "shared":
            model = make_model(self.config)
            set_flat(model, shared)
            return dict.fromkeys(self.data, model)
        mask, heads = head_mask(self.config), self.heads(number)
        models = {name: make_model(self.config) for name in self.data}
        for name, model in models.items():
            own = heads[name].final if final else heads[name].model
            set_flat(model, mask.whole(shared, own))
        return models

    def validate(self, models: Mapping[str, nn.Module]) -> dict[str, float]:
        """Exact validation metric and training loss of each partner's model."""
        losses = [customer_losses(models[name], part, self.task.loss)
                  for name, data in self.data.items() for part in data.train.parts()]
        released = {self._name("_as_released"): self._as_released(models)} if (
            self.task.metric.name == "auc") else {}
        return released | {
            self._name(): self._metric(models),
            "oracle/train/loss": float(np.nanmean(np.concatenate(losses))),
        }

    def validate_naive(self) -> dict[str, float]:
        return {self._name("_naive"): self._metric(None)}

    def validate_baselines(
        self, local: Mapping[str, nn.Module], pooled: nn.Module
    ) -> dict[str, float]:
        return {self._name("_local"): self._metric(local),
                self._name("_pooled"): self._metric(dict.fromkeys(self.data, pooled))}

    def fit_baselines(self) -> tuple[dict[str, nn.Module], nn.Module]:
        return fit_baselines(self.data, self.config.model, self.task, self.config.seed)

    def compare(
        self, federated: Mapping[str, nn.Module], local: Mapping[str, nn.Module],
        pooled: nn.Module
    ) -> tuple[Comparison, ...]:
        """The final test: every partner, all, held out; with bootstrap intervals."""
        return evaluate(self.data, federated, local, pooled, self.task.metric,
                        seed=self.config.seed)

    def _name(self, ending: str = "") -> str:
        return f"oracle/val/{self.task.metric.name}{ending}"

    def _as_released(self, models: Mapping[str, nn.Module]) -> float:
        """What ``val/auc`` would be without noise and without older rounds: of binned scores, and
        with customers that count about alike (learning.auc.EDGES)."""
        metric = self.task.metric
        return metric.released(sum(
            (clip_and_sum(metric.statistics(score, part), metric.clip)
             for part, score in self._scored(models)), start=np.zeros(metric.size)))

    def _metric(self, models: Mapping[str, nn.Module] | None) -> float:
        return exact(self.task.metric, self._scored(models))

    def _scored(self, models: Mapping[str, nn.Module] | None
                ) -> Iterator[tuple[Customers, NDArray[np.floating]]]:
        """Validation customers, some at a time, and what their partner's model says of them; the
        naive rule without models."""
        for name, data in self.data.items():
            for part in data.validation.parts():
                yield part, part.naive if models is None else scores(models[name], part)
