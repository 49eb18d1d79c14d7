"""A federation's training without messages, integers or ciphers: for studies and tables.

The same customers, clipped sums (client.local_round), size of noise (privacy.plan) and steps
(strategies.optimiser) as in a run; what integers and encryption change is measured in
docs/quantisation.md, and is next to nothing. The noise may come from a seeded generator: nothing
made here is a release.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.local_round import update_sum
from conf.compose import CONFIG_DIR, from_hydra
from conf.schema import Config
from experiments.simulate import prepared
from learning.evaluation import exact
from learning.models import get_flat, set_flat
from learning.registry import load_partner, make_model, make_task
from learning.task import Customers, PartnerData, Task
from learning.training import scores
from strategies.agreement import Agreement
from strategies.optimiser import ServerState, step

Part = Literal["validation", "test", "heldout"]
Parts = NDArray[np.float32]
"""(partners, d): what each partner adds to a round's sum."""


def composed(*overrides: str) -> Config:
    """What `veilsum simulate` would run. Raises InvalidConfig and Hydra's errors."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=asdict(Config()))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        return from_hydra(compose(config_name="config", overrides=list(overrides)))


def with_epsilon(config: Config, epsilon: float) -> Config:
    """``config`` with noise shares for ``epsilon``; inf: without noise."""
    if math.isinf(epsilon):
        return replace(config, privacy=replace(config.privacy, name="none"))
    return replace(config, privacy=replace(config.privacy, name="noise_shares", epsilon=epsilon))


@dataclass(frozen=True)
class Case:
    """One configuration with its partners' data."""

    config: Config
    datas: Mapping[str, PartnerData]

    @classmethod
    def of(cls, config: Config) -> Case:
        with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
            config = prepared(config, Path(folder))
            return cls(config, {name: load_partner(config, config.federation.sites[name])
                                for name in config.federation.partners})

    @property
    def task(self) -> Task:
        return make_task(self.config)

    def under(self, config: Config) -> Case:
        """The same data for another model (that reads as much), privacy or strategy."""
        return replace(self, config=replace(
            config, task=self.config.task, federation=self.config.federation).validate())

    def at(self, epsilon: float, clip_norm: float, learning_rate: float) -> Case:
        """The same data with other settings (see :func:`with_epsilon`)."""
        config = with_epsilon(self.config, epsilon)
        return self.under(replace(
            config, privacy=replace(config.privacy, clip_norm=clip_norm),
            strategy=replace(config.strategy, learning_rate=learning_rate)))

    def train(self, noise: np.random.Generator,
              on_the_way: Callable[[Parts], Parts] = lambda parts: parts) -> nn.Module:
        """Each partner's clipped sum as float32 with its share of the noise, a plain sum, a step;
        after the last round the mean that the run would keep. ``on_the_way``: what becomes of a
        round's parts before they are added. Raises InvalidConfig."""
        config, agreement = self.config, Agreement.of(self.config)
        update = agreement.training.region("update")
        # What a partner adds, had rounding cost nothing: its share of the multiplier times C.
        std = update.share_std_steps * update.step / update.inflation
        model = make_model(config)
        state = ServerState.start(get_flat(model))
        for _ in range(config.strategy.rounds):
            set_flat(model, state.model)
            parts = [update_sum(model, data.train, config, agreement, name).astype(np.float32)
                     for name, data in self.datas.items()]
            parts = [part + noise.normal(0, std, part.size).astype(np.float32) for part in parts]
            total = on_the_way(np.array(parts)).sum(axis=0, dtype=np.float32).astype(np.float64)
            state = step(state, total / agreement.divisor(agreement.partners), config.strategy)
        set_flat(model, state.final)
        return model

    def value(self, model_of: Callable[[str], nn.Module] | None, part: Part,
              partners: Sequence[str] = ()) -> float:
        """Exact metric over the customers of ``part``, each scored by its partner's model; the
        naive rule's without one. ``partners``: empty for all."""
        chosen: dict[str, Customers] = {
            name: getattr(self.datas[name], part) for name in partners or self.datas}
        return exact(self.task.metric, [
            (customers, customers.naive if model_of is None
             else scores(model_of(name), customers)) for name, customers in chosen.items()])
