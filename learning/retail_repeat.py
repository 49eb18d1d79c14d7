"""Will this customer buy this category again? Asked of every category bought lately.

Privacy unit: the customer. Its examples are the pairs (snapshot, category) whose category it
bought in the ``history_days`` before the snapshot; the target is a purchase of the same category
in the ``horizon_days`` from the snapshot on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from conf.schema import InvalidConfig, TaskConfig
from learning import complete_journey, tables
from learning.auc import Auc
from learning.features import BOUND, Events, Snapshot, feature_names, snapshot_at
from learning.holdout import first_by_hash, held_out
from learning.losses import CrossEntropy
from learning.partner_file import cached, read_events
from learning.site_table import scan_partner
from learning.table_checks import checked_events
from learning.tables import iso_day
from learning.task import Customers, InputShape, PartnerData

MAX_EXAMPLES = 128
"""Most examples of one customer; a fixed public order of the pairs decides which stay."""
_EPOCH = date(1970, 1, 1)


class RetailRepeat:
    """The task for one configuration. ``seed`` decides who is held out. Raises InvalidConfig."""

    loss = CrossEntropy()
    metric = Auc()
    weight_decay: Mapping[str, float] = MappingProxyType({})
    feature_bound = BOUND
    naive_rule = "days bought × activity ÷ days since the last purchase"
    prepare = staticmethod(tables.prepare_task)

    def __init__(self, config: TaskConfig, seed: int) -> None:
        self.name = config.name
        self._config = _checked(config)
        self._seed = seed
        self.feature_names = feature_names(tuple(self._config.categories))
        self.shape = InputShape(outputs=1, per_output=len(self.feature_names))

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Partner -> its file of canonical events. Raises TableError."""
        path = self._config.path
        if path is None:
            return cached(f"complete-journey-{complete_journey.digest()[:16]}",
                          complete_journey.events, folder)
        if not Path(path).is_file():
            raise InvalidConfig("task.path", f"there is no file {path}")
        return cached(tables.cache_key(self._config), partial(checked_events, self._config), folder)

    def load(self, path: Path) -> PartnerData:
        """Arrays of one partner from its file of events (canonical, or a table as documented in
        docs/data.md). Raises TableError."""
        partner, frame = scan_partner(path)
        events = read_events(frame, self._config.categories)
        return self._split(events, self._is_newcomer(partner))

    def describe(self) -> dict[str, object]:
        """Where the data comes from, without data: name, source, digest, partners, features."""
        path = self._config.path
        if path is None:
            facts = ("complete_journey", complete_journey.SOURCE, complete_journey.digest(),
                     complete_journey.partners())
        else:
            facts = (Path(path).stem, Path(path).name, tables.digest(path),
                     tables.partners(path))
        keys = ("name", "source", "digest", "partners")
        return {**dict(zip(keys, facts, strict=True)), "features": self.feature_names}

    def _is_newcomer(self, partner: str) -> bool:
        return self._config.newcomer_partner is not None and (
            partner == self._config.newcomer_partner)

    def _split(self, events: Events, newcomer: bool) -> PartnerData:
        config = self._config
        out = held_out(events.names, self._seed, config.holdout_fraction)
        training = ~out
        if newcomer:
            training &= first_by_hash(events.names, self._seed, training,
                                      config.newcomer_customers)
        at = partial(self._customers, events)
        return PartnerData(
            train=at(config.train_snapshots, training),
            validation=at([config.validation_snapshot], training),
            test=at([config.test_snapshot], ~out),
            heldout=at([config.test_snapshot], out),
        )

    def _customers(self, events: Events, days: Sequence[str],
                   wanted: NDArray[np.bool_]) -> Customers:
        return pack([snapshot_at(events, day_number(day), self._config) for day in days], wanted)


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
    by_customer = np.lexsort((priority, customer))
    row = (np.cumsum(present) - 1)[customer[by_customer]]
    counts = np.bincount(row, minlength=int(present.sum()))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < MAX_EXAMPLES
    source, target = by_customer[kept], (row[kept], place[kept])
    shape = (int(present.sum()), int(min(MAX_EXAMPLES, counts.max(initial=1))))

    def filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
        array = np.zeros((*shape, *values.shape[1:]), np.float32)
        array[target] = values[source]
        return array

    mask = np.zeros(shape, np.bool_)
    mask[target] = True
    return Customers(filled(features), filled(targets)[..., None], mask, filled(naive)[..., None])


def day_number(iso: str) -> int:
    """Days from 1970-01-01 to an ISO date."""
    return (date.fromisoformat(iso) - _EPOCH).days


def _checked(config: TaskConfig) -> TaskConfig:
    """``config`` with the calendar filled in. Raises InvalidConfig for a calendar in which the
    label of an example would overlap what is predicted later."""
    config.validate()
    calendar = (config.train_snapshots, config.validation_snapshot, config.test_snapshot)
    if config.top_categories or not all(calendar):
        config = tables.prepare_task(config)
    if not config.categories:
        raise InvalidConfig("task.categories", "is empty; name the categories to learn, for "
                            "example 'task.categories=[MILK,BREAD]'")
    if len(set(config.categories)) != len(config.categories):
        raise InvalidConfig("task.categories", "names a category twice")
    if not config.train_snapshots:
        raise InvalidConfig("task.train_snapshots", "is empty: give at least one ISO date")
    step = timedelta(days=config.horizon_days)
    train = [iso_day("task.train_snapshots", day) for day in config.train_snapshots]
    validation = iso_day("task.validation_snapshot", config.validation_snapshot)
    test = iso_day("task.test_snapshot", config.test_snapshot)
    for key, day, earliest in (("task.validation_snapshot", validation, max(train) + step),
                               ("task.test_snapshot", test, validation + step)):
        if day < earliest:
            raise InvalidConfig(key, f"must be {earliest} or later: before that, earlier labels "
                                "are still open")
    return config
