"""Will this customer buy this category again? Asked of every category bought lately.

Privacy unit: the customer. Its examples are the pairs (snapshot, category) whose category it
bought in the ``history_days`` before the snapshot; the target is a purchase of the same category
in the ``horizon_days`` from the snapshot on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from conf.schema import TaskConfig
from learning import retail, tables
from learning.auc import Auc
from learning.customers import CustomerParts, Customers, PartnerData
from learning.features import BOUND, Snapshot, asked_at, feature_names, snapshot_at
from learning.losses import CrossEntropy
from learning.purchases import Purchases
from learning.retail import day_number
from learning.site_table import scan_partner

MAX_EXAMPLES = 128
"""Most examples of one customer; a fixed public order of the pairs decides which stay."""
_PAIR_VALUES = 20
"""What a pair takes at a snapshot while features are made, in floats."""


class RetailRepeat:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    columns = ("customer", "time", "category", "quantity", "value")
    loss = CrossEntropy()
    metric = Auc()
    weight_decay: Mapping[str, float] = MappingProxyType({})
    feature_bound = BOUND
    naive_rule = "days bought × activity ÷ days since the last purchase"
    prepare = staticmethod(tables.prepare_task)

    def __init__(self, config: TaskConfig, seed: int, history: bool = False) -> None:
        self.name = config.name
        self._config = retail.with_vocabulary(config)
        self._seed = seed
        self._history = history
        made = feature_names(tuple(self._config.categories))
        self.shape, self.feature_names = retail.layout(made, self._config.history_days, history)

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical events. Raises TableError."""
        return retail.split_by_partner(self._config, retail.COMPLETE_JOURNEY, folder)

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """Customers of one partner from its file of events (canonical, or a table as documented
        in docs/data.md). Raises TableError."""
        partner, pieces = scan_partner(path, site)
        return self._split(Purchases.of(pieces, self._config.categories), partner)

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        return retail.describe(self._config, retail.COMPLETE_JOURNEY, self.feature_names)

    def _split(self, purchases: Purchases, partner: str) -> PartnerData:
        config = self._config
        training, out = retail.divided(purchases.names, partner, config, self._seed)
        at = partial(self._customers, purchases)
        return PartnerData(
            train=at(config.train_snapshots, training),
            validation=at([config.validation_snapshot], training),
            test=at([config.test_snapshot], ~out),
            heldout=at([config.test_snapshot], out),
        )

    def _customers(self, purchases: Purchases, days: Sequence[str],
                   wanted: NDArray[np.bool_]) -> CustomerParts:
        moments, config = [day_number(day) for day in days], self._config
        present, counts = _counted(purchases, moments, config)
        chosen = np.flatnonzero(present & wanted)

        def build(rows: NDArray[np.int64]) -> Customers:
            events = purchases.events(chosen[rows])
            return pack([snapshot_at(events, moment, config, self._history)
                         for moment in moments], np.ones(len(rows), np.bool_))

        size = self.shape.size
        return CustomerParts(counts[chosen], build, size, each=len(moments) * len(
            config.categories) * (_PAIR_VALUES + self.shape.steps))


def _counted(purchases: Purchases, moments: Sequence[int],
             config: TaskConfig) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(n,) who has any history at a moment, and (n,) the examples of each."""
    present = np.zeros(len(purchases), np.bool_)
    counts = np.zeros(len(purchases), np.int64)
    for group in purchases.groups():
        events = purchases.events(group)
        for moment in moments:
            asked, here = asked_at(events, moment, config)
            present[group] |= here
            counts[group] += asked.sum(1)
    return present, np.minimum(counts, MAX_EXAMPLES)


def pack(snapshots: Sequence[Snapshot], wanted: NDArray[np.bool_]) -> Customers:
    """Examples of the ``wanted`` (n,) customers that have any history at a snapshot."""
    present = np.any([snapshot.present for snapshot in snapshots], axis=0) & wanted
    categories = snapshots[0].asked.shape[1]
    order = np.random.default_rng(0).permutation(len(snapshots) * categories)
    asked = np.stack([snapshot.asked for snapshot in snapshots]) & present[:, None]
    number, customer, category = np.nonzero(asked)
    source, (row, place), mask = retail.places(
        (np.cumsum(present) - 1)[customer], order[number * categories + category],
        int(present.sum()), MAX_EXAMPLES)
    number, customer, category = number[source], customer[source], category[source]
    features: NDArray[np.float32] | None = None
    targets, naive = np.zeros((2, *mask.shape, 1), np.float32)
    for index, snapshot in enumerate(snapshots):
        own = number == index
        pair, at = (customer[own], category[own]), (row[own], place[own])
        made = snapshot.features(*pair)
        if features is None:
            features = np.zeros((*mask.shape, made.shape[1]), np.float32)
        features[at] = made
        targets[at], naive[at] = snapshot.targets[pair][:, None], snapshot.naive[pair][:, None]
    assert features is not None
    return Customers(features, targets, mask, naive)
