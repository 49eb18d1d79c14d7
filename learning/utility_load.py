"""How much power will this home use tomorrow, hour by hour? Asked at 00:00 of every day.

Privacy unit: the customer (a home). Its examples are its days; an example's targets are the 24
readings of the day in kWh. The naive rule is the mean of the last seven days at each hour, which
beats yesterday and last week; models learn what it leaves open (learning.customers.Customers).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from conf.schema import TaskConfig
from learning import load_table, simulated_homes
from learning.customers import CustomerParts, Customers, InputShape, PartnerData
from learning.held_homes import HeldHomes
from learning.holdout import first_by_hash, held_out
from learning.load_checks import checked_readings
from learning.load_features import (
    BOUND,
    HOUR_FEATURES,
    HOURS,
    WEEK,
    Home,
    examples_of,
    usable_days,
)
from learning.load_readings import homes
from learning.load_site import scan_readings
from learning.losses import Huber
from learning.metrics import MeanAbsoluteError
from learning.partner_file import cached

MAX_DAYS = 128
"""Most examples of a home in one split, evenly spaced, so that every weekday is among them."""
HOLDOUT_PARTNERS = ("CA", "TX")
"""Of the fetched homes' utilities."""
_HOMES_AT_ONCE = 8
"""Whose features are made together: as many as caches hold."""
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
        """Customers of one partner from its file of readings. Raises TableError."""
        partner, pieces = scan_readings(path, self._config, site)
        return self._split(HeldHomes.of(home for piece in pieces for home in homes(piece)),
                           partner)

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
            own = list(homes(part))
            out = self._held_out([home.name for home in own], str(partner))
            found[str(partner)] = [home.until(self._ends(len(home))[0])
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

    def _ends(self, days: int) -> tuple[int, int]:
        """Days of a home of so many ``days`` at which training and validation end."""
        config = self._config
        return (int(days * (1 - config.validation_fraction - config.test_fraction)),
                int(days * (1 - config.test_fraction)))

    def _split(self, held: HeldHomes, partner: str) -> PartnerData:
        out = self._held_out(held.names, partner)
        training, newcomer = ~out, partner == self._config.newcomer_partner
        if newcomer:
            training &= first_by_hash(held.names, self._seed, training,
                                      self._config.newcomer_customers)
        cuts = np.array([(0, *self._ends(days), days) for days in held.days.tolist()],
                        np.int64).reshape(-1, 4)
        begins = np.zeros(len(held), np.int64)
        if newcomer:
            begins = np.maximum(0, cuts[:, 1] - self._config.newcomer_days)

        def part(who: NDArray[np.bool_], first: NDArray[np.int64], end: NDArray[np.int64],
                 since: NDArray[np.int64] | None = None) -> CustomerParts:
            chosen = np.flatnonzero(who)
            split = _Split(held, chosen, first[chosen], end[chosen],
                           None if since is None else since[chosen], self._history)
            return CustomerParts(split.counts(), split.build, self.shape.size,
                                 each=int(held.days.max(initial=0)) * 2 * HOURS)

        return PartnerData(
            train=part(training, cuts[:, 0], cuts[:, 1], begins if newcomer else None),
            validation=part(training, cuts[:, 1], cuts[:, 2]),
            test=part(~out, cuts[:, 2], cuts[:, 3]),
            heldout=part(out, cuts[:, 2], cuts[:, 3]))


@dataclass(frozen=True)
class _Split:
    """Examples of the ``chosen`` homes (k,) whose day lies in [first, end) (k,) of each.
    since: (k,) day before which a home is taken as if nothing had been measured."""

    held: HeldHomes
    chosen: NDArray[np.int64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    since: NDArray[np.int64] | None
    history: bool

    def counts(self) -> NDArray[np.int64]:
        return np.array([len(self._home(row)[1]) for row in range(len(self.chosen))], np.int64)

    def build(self, rows: NDArray[np.int64]) -> Customers:
        found = [self._home(row) for row in rows.tolist()]
        counts = [len(days) for _, days in found]
        mask = np.arange(max(counts, default=0)) < np.array(counts, np.int64).reshape(-1, 1)
        size = HOURS * len(HOUR_FEATURES) + self.history * WEEK * HOURS
        features = np.zeros((*mask.shape, size), np.float32)
        targets, naive = np.zeros((2, *mask.shape, HOURS), np.float32)
        scale = np.zeros(mask.shape, np.float32)
        for start in range(0, len(found), _HOMES_AT_ONCE):
            some = found[start:start + _HOMES_AT_ONCE]
            made = examples_of([home for home, _ in some], [days for _, days in some])
            place = 0
            for row, (_, days) in enumerate(some, start):
                own, end = slice(place, place + len(days)), len(days)
                features[row, :end, :HOURS * len(HOUR_FEATURES)] = made.features[own].reshape(
                    end, HOURS * len(HOUR_FEATURES))
                if self.history:
                    features[row, :end, HOURS * len(HOUR_FEATURES):] = made.history[own].reshape(
                        end, WEEK * HOURS)
                targets[row, :end], naive[row, :end] = made.load_kwh[own], made.naive_kwh[own]
                scale[row, :end] = made.scale_kwh[own]
                place += end
        return Customers(features, targets, mask, naive, scale)

    def _home(self, row: int) -> tuple[Home, NDArray[np.int64]]:
        """A home and the days that are its examples, at most MAX_DAYS."""
        home = self.held.home(int(self.chosen[row]))
        first, end = int(self.first[row]), int(self.end[row])
        if self.since is not None:
            begin = int(self.since[row])
            home, first, end = home.since(begin), max(0, first - begin), end - begin
        days = usable_days(home)
        days = days[(days >= first) & (days < end)]
        if len(days) > MAX_DAYS:
            days = days[np.linspace(0, len(days) - 1, MAX_DAYS).round().astype(np.int64)]
        return home, days
