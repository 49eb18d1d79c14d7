"""One customer's weeks: how many units of each category it buys, and what the weeks before say.

Every constant is public. A feature reads only days before the week, and whatever a table holds,
it lies in [-BOUND, BOUND].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.features import Events

WEEKS = 8
MOST_UNITS = 8.0
"""Units of a category that count for one customer in one week; the rest is left out on both
sides, of what is predicted and of what comes true."""
BOUND = 4.0
SPREAD = 5.0
"""Brings a habit's typical values to about 1."""

HABITS = ("mean × visits last week", "mean × visits in 2 weeks", "mean × visits in 4 weeks")
CHANNELS = ("units, by week", "mean × visits, by week")
"""Of the history of one category, each as a difference to its mean over all weeks."""


@dataclass(frozen=True)
class Week:
    """All customers in the seven days from one on.

    features: (n, c, f) float32; history: (n, c, WEEKS, channels) float32, oldest first; units,
    mean_units: (n, c) float32, what is bought, and the mean of the weeks before; present: (n,)
    bool, any event in the weeks before.
    """

    features: NDArray[np.float32]
    history: NDArray[np.float32]
    units: NDArray[np.float32]
    mean_units: NDArray[np.float32]
    present: NDArray[np.bool_]

    def inputs(self, history: bool) -> NDArray[np.float32]:
        """(n, all of a customer's features), with its history behind them if wanted."""
        parts = [part.reshape(len(part), math.prod(part.shape[1:]))
                 for part in (self.features, self.history)]
        return np.concatenate(parts, axis=1) if history else parts[0]


def week_at(events: Events, day: int, categories: int) -> Week:
    """The week that begins with ``day``, after WEEKS others."""
    past = np.stack([_units(events, day - 7 * back, categories) for back in range(WEEKS, 0, -1)])
    visits = np.stack([_visited(events, day - 7 * back) for back in range(WEEKS, 0, -1)])
    return Week(_features(past, visits), _history(past, visits), _units(events, day, categories),
                _mean(past), visits.any(0))


def _units(events: Events, day: int, categories: int) -> NDArray[np.float32]:
    """(n, c) units of the seven days from ``day`` on, 0 to MOST_UNITS."""
    week = events.between(day, day + 7)
    known = week.category >= 0
    index = week.customer[known] * categories + week.category[known]
    units = np.bincount(index, np.nan_to_num(week.quantity[known], posinf=0.0),
                        minlength=len(events.names) * categories)
    return np.clip(units, 0, MOST_UNITS).reshape(-1, categories).astype(np.float32)


def _visited(events: Events, day: int) -> NDArray[np.bool_]:
    """(n,) any event in the seven days from ``day`` on."""
    week = events.between(day, day + 7)
    return np.bincount(week.customer, minlength=len(events.names)) > 0


def _mean(past: NDArray[np.float32]) -> NDArray[np.float32]:
    """(WEEKS, n, c) -> (n, c), week after week: numpy adds those of one customer and category in
    another order than those of several, and a mean must not tell who else is there."""
    total = past[0].copy()
    for week in past[1:]:
        total += week
    return total / np.float32(len(past))


def _features(past: NDArray[np.float32], visits: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(WEEKS, n, c), (WEEKS, n) -> (n, c, f): the customer's mean of the category, times how much
    more (or less) often it came lately than in all weeks.

    Nothing here lets a model draw customers' means together, which would lower the errors of most
    customers and yet shift every total: levels of categories drift from month to month.
    """
    mean, came = _mean(past), visits.astype(np.float32)
    columns = [SPREAD * mean * (came[-weeks:].mean(0) - came.mean(0))[:, None]
               for weeks in (1, 2, 4)]
    return np.clip(np.stack(columns, axis=-1), -BOUND, BOUND)


def _history(past: NDArray[np.float32], visits: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(WEEKS, n, c), (WEEKS, n) -> (n, c, WEEKS, channels). Differences for the same reason: a
    week says more or less than usual, never how much is usual."""
    mean, came = _mean(past), visits.astype(np.float32)
    more_often = SPREAD * mean * (came - came.mean(0))[..., None]
    stacked = np.stack([past - mean, more_often], axis=-1)
    return np.clip(stacked.transpose(1, 2, 0, 3), -BOUND, BOUND)
