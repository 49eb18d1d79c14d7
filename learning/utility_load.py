"""How much power will this home use tomorrow, hour by hour? Asked at 00:00 of every day.

Privacy unit: the customer (a home). Its examples are its days; an example's targets are the 24
readings of the day in kWh. The naive rule is the mean of the last seven days at each hour, which
beats yesterday and last week; models learn what it leaves open (learning.customers.Customers).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from conf.schema import TaskConfig
from learning import load_table, simulated_homes
from learning.customers import Customers, InputShape, PartnerData, concatenate
from learning.holdout import first_by_hash, held_out
from learning.load_checks import checked_readings
from learning.load_features import BOUND, HOUR_FEATURES, HOURS, WEEK, Home, HomeDays, days_of
from learning.load_readings import homes
from learning.load_site import scan_readings
from learning.losses import Huber
from learning.metrics import MeanAbsoluteError
from learning.partner_file import cached

MAX_DAYS = 128
"""Most examples of a home in one split, evenly spaced, so that every weekday is among them."""
HOLDOUT_PARTNERS = ("CA", "TX")
"""Of the fetched homes' utilities."""
_SCALE_OF_ERROR = 2.0
"""Public bound on a home's mean absolute error in what is released, kWh."""


class UtilityLoad:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    columns = ("customer", "time", "load_kwh", "temperature_c")
    loss = Huber(bend=0.1, clip=2.0)
    metric = MeanAbsoluteError("kWh", _SCALE_OF_ERROR)
    weight_decay: Mapping[str, float] = MappingProxyType(
        {"linear": 0.3, "mlp": 0.1, "tcn": 0.3})
    feature_bound = BOUND
    naive_rule = "mean of the last seven days at each hour"

    def __init__(self, config: TaskConfig, seed: int, history: bool = False) -> None:
        config.validate()
        self.name = config.name
        self._config = config
        self._seed = seed
        self._history = history
        steps, channels = (WEEK, HOURS) if history else (0, 0)
        self.shape = InputShape(HOURS, len(HOUR_FEATURES), steps, channels)
        self.feature_names = (*HOUR_FEATURES, *(["hourly load of the seven days before"] * history))

    @staticmethod
    def prepare(config: TaskConfig, site: str | None = None) -> TaskConfig:
        """Where the homes are the fetched ones and nothing is said, two utilities hold homes
        out: the others have three homes and one, who all have to train. The rest of the split
        is each home's own."""
        fetched = config.path is None and not config.simulated_homes
        if fetched and not config.holdout_partners:
            return replace(config, holdout_partners=list(HOLDOUT_PARTNERS))
        return config

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical readings. Raises TableError, InvalidConfig."""
        from learning.sources import homes as source

        if self._config.path is not None:
            return cached(load_table.cache_key(self._config),
                          partial(checked_readings, self._config), folder)
        if self._config.simulated_homes:
            return cached(f"simulated-homes-{self._simulated_digest()[:16]}", self._simulated,
                          folder)
        return cached(f"homes-{source.digest()[:16]}", source.readings, folder)

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """Arrays of one partner from its file of readings. Raises TableError."""
        partner, readings = scan_readings(path, self._config, site)
        return self._split(list(homes(readings)), partner)

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        from learning.sources import homes as source

        path = self._config.path
        if path is not None:
            return {"name": Path(path).stem, "source": Path(path).name,
                    "digest": load_table.digest(path), "partners": (),
                    "features": self.feature_names}
        if self._config.simulated_homes:
            return {"name": "simulated homes",
                    "source": "simulated, as fitted to " + ", ".join(source.PACKAGES),
                    "digest": self._simulated_digest(), "partners": simulated_homes.PARTNERS,
                    "features": self.feature_names}
        return {"name": "homes", "source": ", ".join(source.PACKAGES),
                "digest": source.digest(), "partners": source.PARTNERS,
                "features": self.feature_names}

    def training_homes(self, readings: pl.DataFrame) -> dict[str, list[Home]]:
        """Partner -> its homes that train, cut to their training days: all that a simulation of
        homes may see."""
        found: dict[str, list[Home]] = {}
        for (partner,), part in sorted(readings.partition_by("partner", as_dict=True).items()):
            own = list(homes(part.lazy()))
            out = self._held_out([home.name for home in own], str(partner))
            found[str(partner)] = [home.until(self._ends(home)[0])
                                   for home, is_out in zip(own, out, strict=True) if not is_out]
        return found

    def _simulated(self) -> pl.DataFrame:
        from learning.sources import homes as source

        real = UtilityLoad.prepare(replace(self._config, simulated_homes=0, holdout_partners=[]))
        training = UtilityLoad(real, self._seed).training_homes(source.readings())
        generator = simulated_homes.Generator.fit(training)
        return generator.readings(self._config.simulated_homes, self._seed)

    def _simulated_digest(self) -> str:
        """SHA-256 over everything that the simulated homes depend on."""
        from learning.sources import homes as source

        config = self._config
        settings = json.dumps([
            source.digest(), self._seed, config.simulated_homes, config.holdout_fraction,
            config.validation_fraction, config.test_fraction])
        code = Path(simulated_homes.__file__).read_bytes()
        return hashlib.sha256(settings.encode() + code).hexdigest()

    def _held_out(self, names: Sequence[str], partner: str) -> NDArray[np.bool_]:
        config = self._config
        if config.holdout_partners and partner not in config.holdout_partners:
            return np.zeros(len(names), np.bool_)
        return held_out(names, self._seed, config.holdout_fraction)

    def _ends(self, home: Home) -> tuple[int, int]:
        """Days of the home at which training and validation end."""
        config = self._config
        return (int(len(home) * (1 - config.validation_fraction - config.test_fraction)),
                int(len(home) * (1 - config.test_fraction)))

    def _split(self, found: Sequence[Home], partner: str) -> PartnerData:
        config = self._config
        names = [home.name for home in found]
        out = self._held_out(names, partner)
        training, newcomer = ~out, partner == config.newcomer_partner
        if newcomer:
            training &= first_by_hash(names, self._seed, training, config.newcomer_customers)
        parts: dict[str, list[Customers]] = {"train": [], "validation": [], "test": [],
                                             "heldout": []}
        examples = partial(_examples, self._history)
        for home, is_out, is_training in zip(found, out, training, strict=True):
            validation, test = self._ends(home)
            days = days_of(home)
            parts["heldout" if is_out else "test"].append(examples(days, test, len(home)))
            if is_training:
                parts["validation"].append(examples(days, validation, test))
                first = max(0, validation - config.newcomer_days) if newcomer else 0
                own = days_of(home.since(first)) if newcomer else days
                parts["train"].append(examples(own, 0, validation - first))
        return PartnerData(**{name: concatenate(part or [examples(_NO_DAYS, 0, 0).take(_NO_ROWS)])
                              for name, part in parts.items()})


def _examples(history: bool, days: HomeDays, first: int, end: int) -> Customers:
    """One home's examples whose day lies in [first, end), at most MAX_DAYS."""
    rows = np.flatnonzero((days.day >= first) & (days.day < end))
    if len(rows) > MAX_DAYS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_DAYS).round().astype(np.int64)]
    features = np.concatenate([part[rows].reshape(len(rows), math.prod(part.shape[1:]))
                               for part in (days.features, days.history)[:1 + history]], axis=1)
    return Customers(*(array[None] for array in (
        features, days.load_kwh[rows], np.ones(len(rows), np.bool_), days.naive_kwh[rows],
        days.scale_kwh[rows])))


_NO_DAYS = days_of(Home("", 0, *(np.zeros((0, HOURS), np.float32),) * 2))
_NO_ROWS = np.zeros(0, np.int64)
