"""From a configuration to the task and model it names."""

from __future__ import annotations

from torch import nn

from conf.schema import Config
from learning.models import build_model
from learning.retail_repeat import RetailRepeat
from learning.task import Task


def make_task(config: Config) -> Task:
    return RetailRepeat(config.task, config.seed)


def make_model(config: Config) -> nn.Module:
    """The model at its public start values, the same at every party."""
    return build_model(config.model, features=len(make_task(config).feature_names),
                       seed=config.seed)
