"""How much of each category will a retailer's customers want next week?

A question of supply: what counts is the total of a category and week, over all customers of a
partner. It is answered from below: a model predicts every customer's units in every category, and
the predictions are added up. Training on totals instead would have a handful of examples, and
each would be made of all customers: there would be no customer's gradient to clip. This way the
unit of privacy stays the customer. Its examples are its weeks, its loss and gradient come from
its own purchases alone, and one clipped gradient a round is all that it contributes; so the
accounting of the other tasks holds unchanged. The metric is the WAPE of the totals
(learning.totals): a week of one customer is mostly chance, and a median of mostly zeros would win
a comparison customer by customer while leaving every shelf empty.

The naive rule is the mean of the last eight weeks; models learn what it leaves open
(learning.customers.Customers), by squared errors, because sums call for means. (No error of a
target and a mean is larger than the loss's bend.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from conf.schema import InvalidConfig, TaskConfig
from learning import retail, tables
from learning.customers import CustomerParts, Customers, InputShape, PartnerData
from learning.losses import Huber
from learning.purchases import Purchases
from learning.retail import day_number
from learning.retail_demand_features import (
    BOUND,
    CHANNELS,
    HABITS,
    MOST_UNITS,
    WEEKS,
    Week,
    week_at,
)
from learning.site_table import scan_partner
from learning.totals import TotalsError

WEEK_DAYS = 7
BOUND_UNITS = 20.0
"""Public bound on one customer's statistics in a released metric (learning.totals)."""
_PAIR_VALUES = 2 * WEEKS * (1 + len(CHANNELS))
"""What a category of one customer's week takes while its features are made, in floats."""


class RetailDemand:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    columns = ("customer", "time", "category", "quantity")
    loss = Huber(bend=MOST_UNITS, clip=1.0)
    weight_decay: Mapping[str, float] = MappingProxyType({})
    feature_bound = BOUND
    naive_rule = "mean of the last eight weeks"
    prepare = staticmethod(tables.prepare_task)

    def __init__(self, config: TaskConfig, seed: int, history: bool = False) -> None:
        for key, value, must in (("history_days", config.history_days, WEEKS * WEEK_DAYS),
                                 ("horizon_days", config.horizon_days, WEEK_DAYS)):
            if value != must:
                raise InvalidConfig(f"task.{key}", f"must be {must} in task=retail_demand")
        self.name = config.name
        self._config = retail.with_vocabulary(config)
        self._seed = seed
        self._history = history
        categories = self._config.categories
        past = (WEEKS, len(CHANNELS), len(categories)) if history else ()
        self.shape = InputShape(len(categories), len(HABITS), *past)
        self.feature_names = (*HABITS, *(CHANNELS if history else ()))
        self.metric = TotalsError(config.horizons, len(categories), BOUND_UNITS)

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical events. Raises TableError."""
        return retail.split_by_partner(self._config, retail.COMPLETE_JOURNEY, folder)

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """Arrays of one partner from its file of events. Raises TableError."""
        partner, pieces = scan_partner(path, site)
        purchases = Purchases.of(pieces, self._config.categories)
        training, out = retail.divided(purchases.names, partner, self._config, self._seed)
        at = partial(_customers, purchases, self.shape.size, self._history)
        validation, test = (self._weeks(day) for day in (
            self._config.validation_snapshot, self._config.test_snapshot))
        return PartnerData(
            train=at([day_number(day) for day in self._config.train_snapshots], training),
            validation=at(validation, training),
            test=at(test, ~out),
            heldout=at(test, out),
        )

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        return retail.describe(self._config, retail.COMPLETE_JOURNEY, self.feature_names)

    def _weeks(self, first: str) -> list[int]:
        start = day_number(first)
        return [start + week * WEEK_DAYS for week in range(self._config.horizons)]


def _customers(purchases: Purchases, size: int, history: bool, days: Sequence[int],
               wanted: NDArray[np.bool_]) -> CustomerParts:
    """A row for each ``wanted`` (n,) customer with any event in the eight weeks before the first
    of ``days``: an example a week, every week. New customers' demand is nobody's habit yet.
    size: features of an example."""
    categories = len(purchases.categories)
    chosen = np.flatnonzero(_came(purchases, days[0]) & wanted)

    def build(rows: NDArray[np.int64]) -> Customers:
        events = purchases.events(chosen[rows])
        weeks = [week_at(events, day, categories) for day in days]

        def stacked(part: Callable[[Week], NDArray[np.float32]]) -> NDArray[np.float32]:
            return np.stack([part(week) for week in weeks], axis=1)

        shape = (len(rows), len(weeks))
        return Customers(
            stacked(lambda week: week.inputs(history)), stacked(lambda week: week.units),
            np.ones(shape, np.bool_), stacked(lambda week: week.mean_units),
            np.ones(shape, np.float32))

    return CustomerParts(np.full(len(chosen), len(days)), build, size,
                         each=_PAIR_VALUES * categories * len(days))


def _came(purchases: Purchases, day: int) -> NDArray[np.bool_]:
    """(n,) any event in the eight weeks before."""
    came = np.zeros(len(purchases), np.bool_)
    for group in purchases.groups():
        past = purchases.events(group).between(day - WEEKS * WEEK_DAYS, day)
        came[group[past.customer]] = True
    return came
