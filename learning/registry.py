"""From a configuration to the task, the data and the model it names."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from torch import nn

from conf.schema import Config, TaskConfig
from learning.models import build_model
from learning.retail_repeat import RetailRepeat
from learning.task import PartnerData, Task


def make_task(config: Config) -> Task:
    return RetailRepeat(config.task, config.seed)


def load_partner(config: Config, path: Path | str) -> PartnerData:
    """One partner's arrays, read once per process, file version and task settings.

    Callers share the arrays, so they are made read-only.
    """
    task = json.dumps([asdict(replace(config.task, path=None)), config.seed], sort_keys=True)
    return _load(task, str(path), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _load(task: str, path: str, modified_ns: int) -> PartnerData:
    settings, seed = json.loads(task)
    data = RetailRepeat(TaskConfig(**settings), seed).load(Path(path))
    for part in (data.train, data.validation, data.test, data.heldout):
        for array in (part.features, part.targets, part.mask, part.naive):
            array.flags.writeable = False
    return data


def make_model(config: Config) -> nn.Module:
    """The model at its public start values, the same at every party."""
    return build_model(config.model, features=len(make_task(config).feature_names),
                       seed=config.seed)
