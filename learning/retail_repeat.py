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
from learning.customers import Customers, PartnerData
from learning.features import BOUND, Events, Snapshot, feature_names, snapshot_at
from learning.losses import CrossEntropy
from learning.partner_file import read_events
from learning.retail import day_number
from learning.site_table import scan_partner

MAX_EXAMPLES = 128
"""Most examples of one customer; a fixed public order of the pairs decides which stay."""


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
        """Arrays of one partner from its file of events (canonical, or a table as documented in
        docs/data.md). Raises TableError."""
        partner, frame = scan_partner(path, site)
        events = read_events(frame, self._config.categories)
        return self._split(events, partner)

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        return retail.describe(self._config, retail.COMPLETE_JOURNEY, self.feature_names)

    def _split(self, events: Events, partner: str) -> PartnerData:
        config = self._config
        training, out = retail.divided(events.names, partner, config, self._seed)
        at = partial(self._customers, events)
        return PartnerData(
            train=at(config.train_snapshots, training),
            validation=at([config.validation_snapshot], training),
            test=at([config.test_snapshot], ~out),
            heldout=at([config.test_snapshot], out),
        )

    def _customers(self, events: Events, days: Sequence[str],
                   wanted: NDArray[np.bool_]) -> Customers:
        return pack([snapshot_at(events, day_number(day), self._config, self._history)
                     for day in days], wanted)


def pack(snapshots: Sequence[Snapshot], wanted: NDArray[np.bool_]) -> Customers:
    """Examples of the ``wanted`` (n,) customers that have any history at a snapshot."""
    present = np.any([snapshot.present for snapshot in snapshots], axis=0) & wanted
    categories = snapshots[0].asked.shape[1]
    order = np.random.default_rng(0).permutation(len(snapshots) * categories)
    parts = []
    for index, snapshot in enumerate(snapshots):
        customer, category = np.nonzero(snapshot.asked & present[:, None])
        parts.append((customer, order[index * categories + category],
                      snapshot.features[customer, category],
                      snapshot.targets[customer, category], snapshot.naive[customer, category]))
    customer, priority, features, targets, naive = (
        np.concatenate(column) for column in zip(*parts, strict=True))
    row = (np.cumsum(present) - 1)[customer]
    (features, targets, naive), mask = retail.padded(
        row, priority, (features, targets, naive), int(present.sum()), MAX_EXAMPLES)
    return Customers(features, targets[..., None], mask, naive[..., None])
