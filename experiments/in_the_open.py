"""A federation's training without messages, integers or ciphers: for studies and tables.

The same customers, clipped sums (client.local_round), size of noise (privacy.plan) and steps
(strategies.optimiser) as in a run; what integers and encryption change is measured in
docs/quantisation.md, and is next to nothing. The noise may come from a seeded generator: nothing
made here is a release.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.heads import start_head, step_head
from client.local_round import update_sum
from conf.compose import CONFIG_DIR, from_hydra
from conf.schema import Config, InvalidConfig
from experiments.simulate import prepared
from learning.customers import CustomerParts, Customers, PartnerData
from learning.evaluation import exact
from learning.models import set_flat
from learning.registry import head_mask, load_partner, make_model, make_task, shared_start
from learning.task import Task
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
            return cls(config, {name: load_partner(config, config.federation.sites[name], name)
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
        """The model that all share, for a configuration without heads. Raises InvalidConfig."""
        if self.config.model.head != "shared":
            raise InvalidConfig("model.head", "there is no one model with heads; drop it here")
        return next(iter(self.train_each(noise, on_the_way).values()))

    def train_each(self, noise: np.random.Generator,
                   on_the_way: Callable[[Parts], Parts] = lambda parts: parts
                   ) -> dict[str, nn.Module]:
        """Partner -> its model. Each partner's clipped sum as float32 with its share of the noise,
        a plain sum, a step, and a step of each head along its own sum with all of the noise; after
        the last round the means that the run would keep. ``on_the_way``: what becomes of a round's
        parts before they are added. Raises InvalidConfig."""
        config, agreement = self.config, Agreement.of(self.config)
        update, mask = agreement.training.region("update"), head_mask(config)
        # What a partner adds, had rounding cost nothing: its share of the multiplier times C.
        std = update.share_std_steps * update.step / update.inflation
        head_std = std * math.sqrt(agreement.training.shares)
        state = ServerState.start(shared_start(config))
        heads = dict.fromkeys(self.datas, start_head(config))
        for number in range(1, config.strategy.rounds + 1):
            sums = {name: update_sum(self._model(state.model, heads[name].model), data.train,
                                     config, agreement, name)
                    for name, data in self.datas.items()}
            parts = [mask.shared(part).astype(np.float32) for part in sums.values()]
            parts = [part + noise.normal(0, std, part.size).astype(np.float32) for part in parts]
            total = on_the_way(np.array(parts)).sum(axis=0, dtype=np.float32).astype(np.float64)
            state = step(state, total / agreement.divisor(agreement.partners), config.strategy)
            heads = {name: step_head(
                heads[name], number, mask.head(part) + noise.normal(0, head_std, mask.size),
                config, agreement, name) for name, part in sums.items()}
        return {name: self._model(state.final, head.final) for name, head in heads.items()}

    def _model(self, shared: NDArray[np.float64], head: NDArray[np.float64]) -> nn.Module:
        model = make_model(self.config)
        set_flat(model, head_mask(self.config).whole(shared, head))
        return model

    def value(self, model_of: Callable[[str], nn.Module] | None, part: Part,
              partners: Sequence[str] = ()) -> float:
        """Exact metric over the customers of ``part``, each scored by its partner's model; the
        naive rule's without one. ``partners``: empty for all."""
        def scored() -> Iterator[tuple[Customers, NDArray[np.floating]]]:
            for name in partners or self.datas:
                customers: CustomerParts = getattr(self.datas[name], part)
                for some in customers.parts():
                    yield some, some.naive if model_of is None else scores(model_of(name), some)

        return exact(self.task.metric, scored())
