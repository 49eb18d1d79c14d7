"""From a configuration to the task, the data and the model it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from conf.schema import Config, TaskConfig
from learning.customers import PartnerData
from learning.heads import HeadMask
from learning.models import build_model, get_flat, set_flat
from learning.retail_cross import RetailCross
from learning.retail_demand import RetailDemand
from learning.retail_repeat import RetailRepeat
from learning.task import Task
from learning.utility_load import UtilityLoad

TASKS: Mapping[str, type[Task]] = {
    "retail_repeat": RetailRepeat, "retail_cross": RetailCross, "retail_demand": RetailDemand,
    "utility_load": UtilityLoad}


def make_task(config: Config) -> Task:
    return TASKS[config.task.name](config.task, config.seed, config.model.reads_history)


def prepare(config: Config, site: str | None = None) -> Config:
    """``config`` with everything that the task's parties must agree on made explicit. ``site``:
    the partner who has the task's table to itself, if one does."""
    return replace(config, task=TASKS[config.task.name].prepare(config.task, site))


def load_partner(config: Config, path: Path | str, partner: str | None = None) -> PartnerData:
    """One partner's customers, read once per process, file version, task settings and layout.

    ``partner``: whose site the file lies at, by its own word; rows of another are refused.
    Callers share what is kept of them. Raises TableError.
    """
    task = json.dumps([asdict(replace(config.task, path=None)), config.seed,
                       config.model.reads_history], sort_keys=True)
    return _load(task, str(path), Path(path).stat().st_mtime_ns, partner)


def forget_partners() -> None:
    """Let go of all arrays that :func:`load_partner` holds: files that are gone are asked for by
    nobody, and a series of runs would keep those of each."""
    _load.cache_clear()


@lru_cache(maxsize=1024)  # a simulation's partners; a site has one
def _load(task: str, path: str, modified_ns: int, partner: str | None) -> PartnerData:
    settings, seed, history = json.loads(task)
    config = TaskConfig(**settings)
    data = TASKS[config.name](config, seed, history).load(Path(path), partner)
    return replace(data, train=data.train.fewest_first())


def make_model(config: Config) -> nn.Module:
    """The model at its public start values, the same at every party."""
    return build_model(config.model, make_task(config).shape, config.seed)


def head_mask(config: Config) -> HeadMask:
    return HeadMask.of(make_model(config), config.model.head)


def with_start_head(config: Config, shared: NDArray[np.float64]) -> nn.Module:
    """What can be given away: what the partners trained together (d - k,), and, in the place of
    their heads, the public start values, from which a newcomer would begin."""
    model = make_model(config)
    mask = HeadMask.of(model, config.model.head)
    set_flat(model, mask.whole(shared, mask.head(get_flat(model))))
    return model


def shared_start(config: Config) -> NDArray[np.float64]:
    """Public start values (d - k,) of what the partners train together."""
    model = make_model(config)
    return HeadMask.of(model, config.model.head).shared(get_flat(model))
