"""What one customer's history says about one category at one moment: bounded, centred numbers.

Every constant here is public. A feature reads only days before the snapshot, and whatever a
table holds, each value lies in [-BOUND, BOUND] (not a number counts as 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf.schema import TaskConfig
from learning.weekly_history import sequence, weekly, weeks_of

BOUND = 2.0
"""Every feature is clipped to [-BOUND, BOUND]."""
CATEGORY_SCALE = 2.0
"""Value of a category's own indicator (0 elsewhere)."""

HISTORY_FEATURES = (
    "frequency", "recency", "overdue", "visits_since", "overdue_in_visits", "share_of_visits",
    "later_half", "spend", "quantity", "visits", "recent_visits", "visit_recency", "breadth",
    "recent_breadth", "spread",
)


def feature_names(categories: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the last axis of :func:`features_at`."""
    return (*HISTORY_FEATURES, *(f"is {category}" for category in categories))


@dataclass(frozen=True)
class Events:
    """One partner's purchases, one row per customer, category and day.

    customer: (r,) int64 index into ``names``; category: (r,) int64 index into the public
    vocabulary, -1 for any other (it counts as a visit only); day: (r,) int64 days since
    1970-01-01; quantity, value: (r,) float32.
    """

    names: tuple[str, ...]
    customer: NDArray[np.int64]
    category: NDArray[np.int64]
    day: NDArray[np.int64]
    quantity: NDArray[np.float32]
    value: NDArray[np.float32]

    def between(self, first_day: int, end_day: int) -> Events:
        """Rows with first_day <= day < end_day; ``names`` stays."""
        rows = np.flatnonzero((self.day >= first_day) & (self.day < end_day))
        return Events(self.names, self.customer[rows], self.category[rows], self.day[rows],
                      self.quantity[rows], self.value[rows])


@dataclass(frozen=True)
class Snapshot:
    """All (customer, category) pairs at one moment.

    targets, naive: (n, c) float32; asked: (n, c) bool, the pair is an example: bought in the
    history, but not in its last quiet days; present: (n,) bool, the customer has any event in the
    history. weeks: of the history, where one is wanted.
    """

    targets: NDArray[np.float32]
    naive: NDArray[np.float32]
    asked: NDArray[np.bool_]
    present: NDArray[np.bool_]
    history_days: int
    pairs: Mapping[str, NDArray[np.float64]]
    visits: Mapping[str, NDArray[np.float64]]
    weeks: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def features(self, customer: NDArray[np.int64],
                 category: NDArray[np.int64]) -> NDArray[np.float32]:
        """(m, f) of the pairs (m,), with a history behind them if one is wanted."""
        made = _features(self.pairs, self.visits, self.history_days, customer, category)
        if self.weeks is None:
            return made
        bought, came = self.weeks
        past = sequence((bought[customer, category], came[customer]), BOUND)
        return np.concatenate([made, past], axis=-1)


def snapshot_at(events: Events, day: int, config: TaskConfig, history: bool = False) -> Snapshot:
    """Features from the ``history_days`` before ``day``, targets from the ``horizon_days`` that
    begin with it."""
    categories = len(config.categories)
    past = events.between(day - config.history_days, day)
    future = events.between(day, day + config.horizon_days)
    pairs = _pair_counts(past, categories, day, config.history_days)
    visits = _visit_counts(past, day, config.history_days)
    return Snapshot(
        targets=(_per_pair(future, categories) > 0).astype(np.float32),
        naive=_naive(pairs, visits),
        asked=(pairs["days"] > 0) & (pairs["last"] > config.quiet_days),
        present=visits["days"] > 0,
        history_days=config.history_days, pairs=pairs, visits=visits,
        weeks=_weeks(past, categories, day, weeks_of(config.history_days)) if history else None,
    )


def asked_at(events: Events, day: int,
             config: TaskConfig) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``asked`` and ``present`` of :func:`snapshot_at`, without the rest."""
    past = events.between(day - config.history_days, day)
    shape = (len(past.names), len(config.categories))
    last = _last(past, shape, day, config.history_days)
    bought = _per_pair(past, shape[1]) > 0
    present = np.bincount(past.customer, minlength=shape[0]) > 0
    return bought & (last > config.quiet_days), present


def _weeks(past: Events, categories: int, day: int,
           weeks: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, c, weeks) and (n, weeks), in the order of weekly_history.CHANNELS."""
    n, known, age = len(past.names), past.category >= 0, day - past.day
    pair = past.customer[known] * categories + past.category[known]
    bought = weekly(pair, age[known], n * categories, weeks).reshape(n, categories, weeks)
    visits = np.unique(np.stack([past.customer, age], axis=1), axis=0)
    return bought, weekly(visits[:, 0], visits[:, 1], n, weeks)


def _per_pair(events: Events, categories: int,
              weights: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
    """(n, c) number of rows of each pair, or the sum of ``weights`` (r,)."""
    known = events.category >= 0
    index = events.customer[known] * categories + events.category[known]
    size = len(events.names) * categories
    total = np.bincount(index, None if weights is None else weights[known], minlength=size)
    return total.reshape(len(events.names), categories).astype(np.float64)


def _pair_counts(past: Events, categories: int, day: int,
                 history_days: int) -> dict[str, NDArray[np.float64]]:
    """(n, c) each. last, first: age in days, 1 is the day before the snapshot; since: visits of
    the customer after the last purchase of the category."""
    known = past.category >= 0
    index = past.customer[known] * categories + past.category[known]
    age = (day - past.day[known]).astype(np.float64)
    shape = (len(past.names), categories)
    last, first = _last(past, shape, day, history_days), np.zeros(shape)
    np.maximum.at(first.reshape(-1), index, age)
    span = history_days + 1
    visited = np.unique(past.customer * span + (day - past.day))
    customer = np.arange(shape[0])[:, None] * span
    since = np.searchsorted(visited, customer + last.astype(np.int64)) - np.searchsorted(
        visited, customer)
    later, month = (past.between(day - days, day) for days in (history_days // 2, 28))
    return {"days": _per_pair(past, categories), "last": last, "first": first, "since": since,
            "later": _per_pair(later, categories), "month": _per_pair(month, categories),
            "value": _per_pair(past, categories, past.value),
            "quantity": _per_pair(past, categories, past.quantity)}


def _last(past: Events, shape: tuple[int, int], day: int,
          history_days: int) -> NDArray[np.float64]:
    """(n, c) age of the last purchase, ``history_days`` where there is none."""
    known = past.category >= 0
    last = np.full(shape, float(history_days))
    np.minimum.at(last.reshape(-1), past.customer[known] * shape[1] + past.category[known],
                  (day - past.day[known]).astype(np.float64))
    return last


def _visit_counts(past: Events, day: int, history_days: int) -> dict[str, NDArray[np.float64]]:
    """Days with any purchase: (n,) each."""
    span = history_days + 1
    visited = np.unique(past.customer * span + (day - past.day))
    customer, age = np.divmod(visited, span)
    n = len(past.names)
    last = np.full(n, float(history_days))
    np.minimum.at(last, customer, age.astype(np.float64))
    return {"days": np.bincount(customer, minlength=n).astype(np.float64),
            "month": np.bincount(customer[age <= 28], minlength=n).astype(np.float64),
            "last": last}


def _features(pairs: Mapping[str, NDArray[np.float64]], visits: Mapping[str, NDArray[np.float64]],
              history_days: int, customer: NDArray[np.int64],
              category: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m, f) in the order of :func:`feature_names`. The offsets and divisors centre typical
    grocery shopping; they are constants, not statistics of anybody's data."""
    days, last, first, since, later, value, quantity = (
        pairs[name][customer, category]
        for name in ("days", "last", "first", "since", "later", "value", "quantity"))
    once = np.maximum(days, 1.0)
    cycle = np.where(days > 1, (first - last) / np.maximum(days - 1.0, 1.0), history_days / 2)
    visit_days = np.maximum(visits["days"], 1.0)[customer]
    visit_last = visits["last"][customer]
    breadth, recent = ((pairs[name] > 0).mean(axis=1)[customer] for name in ("days", "month"))
    with np.errstate(all="ignore"):
        columns = [
            1.5 * (np.log(once) - 0.4),
            1.0 - 4.0 * (np.sqrt(last / history_days) - 0.53),
            np.log(last / np.maximum(cycle, 1.0)) - 0.5,
            np.log1p(since) - 1.8,
            1.5 * (np.log((1.0 + since) * once / visit_days) + 0.2),
            np.log(once / visit_days) + 2.0,
            1.5 * (np.log1p(later) - 0.3),
            np.log1p(np.maximum(value, 0.0) / once) - 1.5,
            1.5 * (np.log(np.maximum(quantity, 0.0) / once) - 0.4),
            np.log(visit_days) - 2.4,
            np.log1p(visits["month"])[customer] - 1.4,
            0.6 - 2.0 * np.sqrt(visit_last / history_days),
            3.0 * (breadth - 0.6),
            3.0 * (recent - 0.28),
            np.log1p(np.maximum(first - last, 0.0) / 7.0) - 0.5,
        ]
    made = len(columns)
    features = np.zeros((len(customer), made + pairs["days"].shape[1]), np.float32)
    for place, column in enumerate(columns):
        features[:, place] = np.clip(np.nan_to_num(column.astype(np.float32), nan=0.0),
                                     -BOUND, BOUND)
    features[np.arange(len(customer)), made + category] = CATEGORY_SCALE
    return features


def _naive(pairs: Mapping[str, NDArray[np.float64]],
           visits: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """(n, c) frequency x activity / recency: shopping days with the category, times the root of
    1 + visits in the last 28 days, over the days since the category was last bought
    (experiments.naive_rules compares it with simpler ones). On a log scale, shifted so that
    histograms of it use the same cells as a model's logits."""
    log_rule = (np.log(np.maximum(pairs["days"], 1.0)) + 0.5 * np.log1p(visits["month"])[:, None]
                - np.log(pairs["last"]))
    return (log_rule + 1.6).astype(np.float32)
