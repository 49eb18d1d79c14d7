"""What a question is to the rest of the program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from conf.schema import TaskConfig
from learning.customers import InputShape, PartnerData
from learning.losses import Loss
from learning.metrics import Metric


class Task(Protocol):
    """A question that a federation learns to answer. Pure: reads files, holds no state. Made
    from a TaskConfig, a seed, and whether examples carry a history for models that read one;
    raises InvalidConfig where they ask for something impossible."""

    name: str
    columns: tuple[str, ...]
    """Of a site's table, what features and goals are made of; public. A partner's name and what
    the task does not list change nothing."""
    shape: InputShape
    loss: Loss
    metric: Metric
    weight_decay: Mapping[str, float]
    """Of baselines, by model, where it is not learning.evaluation.WEIGHT_DECAY's."""
    naive_rule: str
    """The naive baseline in a few words."""
    feature_bound: float
    """Every feature lies in [-feature_bound, feature_bound]."""
    feature_names: tuple[str, ...]
    """Names of the features, to describe a run's data; public."""

    @staticmethod
    def prepare(config: TaskConfig, site: str | None = None) -> TaskConfig:
        """Everything that a run's parties must agree on made explicit (a calendar, a
        vocabulary), from the table of ``path`` if there is one. ``site``: the partner who has
        that table to itself, if one does. Idempotent. Raises InvalidConfig, TableError."""

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Write one file of events per partner into ``folder``: what each site would hold."""

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """Read one partner's file of events. ``site``: the partner whose site it lies at; rows of
        another are refused, and rows without a partner are its own. Raises TableError."""

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
