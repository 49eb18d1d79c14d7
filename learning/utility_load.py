"""How much power will this home use tomorrow, hour by hour? Asked at 00:00 of every day.

Privacy unit: the customer (a home). Its examples are its days; an example's targets are the 24
readings of the day in kWh. The naive rule is the mean of the last seven days at each hour, which
beats yesterday and last week; models learn what it leaves open (learning.task.Customers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from conf.schema import InvalidConfig, TaskConfig
from learning.holdout import first_by_hash, held_out
from learning.load_features import HOUR_FEATURES, HOURS, WEEK, Home, HomeDays, days_of
from learning.load_readings import homes, scan_readings
from learning.losses import Huber
from learning.metrics import MeanAbsoluteError
from learning.partner_file import cached
from learning.task import Customers, InputShape, PartnerData, concatenate

MAX_DAYS = 128
"""Most examples of a home in one split, evenly spaced, so that every weekday is among them."""
_SCALE_OF_ERROR = 2.0
"""Public bound on a home's mean absolute error in what is released, kWh."""


class UtilityLoad:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    loss = Huber(bend=0.1, clip=2.0)
    metric = MeanAbsoluteError("kWh", _SCALE_OF_ERROR)
    weight_decay: Mapping[str, float] = MappingProxyType({"linear": 0.3, "mlp": 0.1})
    naive_rule = "mean of the last seven days at each hour"
    shape = InputShape(outputs=HOURS, per_output=len(HOUR_FEATURES), steps=WEEK, channels=HOURS)
    feature_names = (*HOUR_FEATURES, "hourly load of the seven days before")

    def __init__(self, config: TaskConfig, seed: int) -> None:
        config.validate()
        self.name = config.name
        self._config = config
        self._seed = seed

    @staticmethod
    def prepare(config: TaskConfig) -> TaskConfig:
        """Nothing to agree on but the configuration: the split is each home's own."""
        return config

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical readings. Raises TableError, InvalidConfig."""
        from learning.sources import homes as source

        if self._config.path is not None:
            raise InvalidConfig("task.path", "own readings are not supported yet")
        return cached(f"homes-{source.digest()[:16]}", source.readings, folder)

    def load(self, path: Path) -> PartnerData:
        """Arrays of one partner from its file of readings. Raises TableError."""
        partner, readings = scan_readings(path)
        return self._split(list(homes(readings)), partner)

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        from learning.sources import homes as source

        return {"name": "homes", "source": ", ".join(source.PACKAGES),
                "digest": source.digest(), "partners": source.PARTNERS,
                "features": self.feature_names}

    def _split(self, found: Sequence[Home], partner: str) -> PartnerData:
        config = self._config
        names = [home.name for home in found]
        out = np.zeros(len(found), np.bool_)
        if not config.holdout_partners or partner in config.holdout_partners:
            out = held_out(names, self._seed, config.holdout_fraction)
        training, newcomer = ~out, partner == config.newcomer_partner
        if newcomer:
            training &= first_by_hash(names, self._seed, training, config.newcomer_customers)
        parts: dict[str, list[Customers]] = {"train": [], "validation": [], "test": [],
                                             "heldout": []}
        for home, is_out, is_training in zip(found, out, training, strict=True):
            validation, test = (int(len(home) * share) for share in (
                1 - config.validation_fraction - config.test_fraction, 1 - config.test_fraction))
            days = days_of(home)
            parts["heldout" if is_out else "test"].append(_examples(days, test, len(home)))
            if is_training:
                parts["validation"].append(_examples(days, validation, test))
                first = max(0, validation - config.newcomer_days) if newcomer else 0
                own = days_of(home.since(first)) if newcomer else days
                parts["train"].append(_examples(own, 0, validation - first))
        return PartnerData(**{name: concatenate(part or [_NOBODY])
                              for name, part in parts.items()})


def _examples(days: HomeDays, first: int, end: int) -> Customers:
    """One home's examples whose day lies in [first, end), at most MAX_DAYS."""
    rows = np.flatnonzero((days.day >= first) & (days.day < end))
    if len(rows) > MAX_DAYS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_DAYS).round().astype(np.int64)]
    features = np.concatenate([part[rows].reshape(len(rows), math.prod(part.shape[1:]))
                               for part in (days.features, days.history)], axis=1)
    return Customers(*(array[None] for array in (
        features, days.load_kwh[rows], np.ones(len(rows), np.bool_), days.naive_kwh[rows],
        days.scale_kwh[rows])))


_NOBODY = _examples(days_of(Home("", 0, *(np.zeros((0, HOURS), np.float32),) * 2)), 0, 0).take(
    np.zeros(0, np.int64))
