"""A home's hourly readings, and what they say at midnight about the day that begins.

One example is one day of one home. Every feature is known at 00:00 of that day, is relative to
the home's own last week, and lies in [-BOUND, BOUND]; every other constant here is public.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUND = 3.0
"""Every feature is clipped to [-BOUND, BOUND]."""
HOURS, WEEK = 24, 7
MONTH = 28
LEAST_SCALE_KWH = 0.05
"""Homes that use less are measured as if they used this much."""
_FEWEST = 4
"""Of the seven readings before at an hour, so many must be there."""
_NOT_A_DAY = np.float32(np.nan)

HOUR_FEATURES = (
    "yesterday", "two days ago", "last week", "same weekday, four weeks", "same kind of day",
    "last month", "shape of the week", "spread of the week", "hour before, yesterday",
    "hour after, yesterday", "level of yesterday", "level of last evening", "trend of the week",
    "temperature known", "warmth yesterday", "cold yesterday", "warmer than the week",
    "weekend", "season cosine", "season sine", "hour cosine", "hour sine", "half-day cosine",
    "half-day sine",
)
"""Names of the features of one hour. Loads are differences to the mean of the last seven days
at that hour, in units of the home's mean load of that week."""


@dataclass(frozen=True)
class Home:
    """Hourly readings of one customer on whole local days.

    first_day: days since 1970-01-01; load_kwh, temperature_c: (d, 24) float32, NaN where there
    is no reading.
    """

    name: str
    first_day: int
    load_kwh: NDArray[np.float32]
    temperature_c: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.load_kwh)

    def until(self, day: int) -> Home:
        """Before the ``day``-th."""
        return Home(self.name, self.first_day, self.load_kwh[:day], self.temperature_c[:day])

    def since(self, day: int) -> Home:
        """From the ``day``-th on, as if nothing had been measured before."""
        return Home(self.name, self.first_day + day, self.load_kwh[day:], self.temperature_c[day:])


@dataclass(frozen=True)
class HomeDays:
    """Examples of one home: day: (k,) index into the home's days; features: (k, 24, p); history:
    (k, 7, 24) the week before, oldest first, relative to its mean; load_kwh, naive_kwh: (k, 24),
    what was used and the mean of the last seven days; scale_kwh: (k,) the mean of that week."""

    day: NDArray[np.int64]
    features: NDArray[np.float32]
    history: NDArray[np.float32]
    load_kwh: NDArray[np.float32]
    naive_kwh: NDArray[np.float32]
    scale_kwh: NDArray[np.float32]


def days_of(home: Home) -> HomeDays:
    """Every day of which all 24 readings are there, and enough of the week before."""
    return examples_of([home], [usable_days(home)])


def usable_days(home: Home) -> NDArray[np.int64]:
    """(k,) the days that :func:`days_of` gives."""
    known = np.isfinite(home.load_kwh)
    if len(known) <= WEEK:
        return np.zeros(0, np.int64)
    before = np.zeros((len(known) + 1, HOURS), np.int32)
    np.cumsum(known, axis=0, out=before[1:])
    enough = ((before[WEEK:-1] - before[:-WEEK - 1]) >= _FEWEST).all(1) & known[WEEK:].all(1)
    return np.flatnonzero(enough) + WEEK


def examples_of(homes: Sequence[Home], days: Sequence[NDArray[np.int64]]) -> HomeDays:
    """``days``: of each home some of its :func:`usable_days`; their examples, home after home.

    Guarantee: an example is the same to the bit whichever other homes and days are asked for.
    Every number is made place by place, and every sum in a fixed order (:func:`_added`).
    """
    gap = np.full((MONTH, HOURS), np.nan, np.float32)  # before its first day nothing is known

    def joined(part: Callable[[Home], NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([gap, *(piece for home in homes for piece in (part(home), gap))])

    starts = np.cumsum([MONTH, *(len(home) + MONTH for home in homes)])
    own = [np.zeros(0, np.int64), *days]
    day, counts = np.concatenate(own), [len(part) for part in own[1:]]
    place = day + np.repeat(starts[:-1], counts)
    calendar = day + np.repeat(np.array([home.first_day for home in homes], np.int64), counts)
    load = joined(lambda home: home.load_kwh)
    week = load[place[:, None] + np.arange(-WEEK, 0)]
    known = np.isfinite(week)
    naive = _mean(np.where(known, week, np.float32(0)), known)
    week = np.where(known, week, naive[:, None])
    whole = _added(_added(week, axis=1), axis=1) / np.float32(WEEK * HOURS)
    scale = np.maximum(whole, np.float32(LEAST_SCALE_KWH))
    features = _features(week, naive, scale, [
        *_past(load, place, calendar),
        *_weather(joined(lambda home: home.temperature_c), place), *_clock(calendar)])
    history = _bounded(week / scale[:, None, None] - 1)
    return HomeDays(day, features, history, load[place], naive, scale)


def _features(week: NDArray[np.float32], naive: NDArray[np.float32], scale: NDArray[np.float32],
              others: Sequence[NDArray[np.floating]]) -> NDArray[np.float32]:
    """(k, 24, p) in the order of HOUR_FEATURES. others: three means of loads, then the rest."""
    change = (week - naive[:, None]) / scale[:, None, None]
    yesterday, own = change[:, -1], scale[:, None]
    levels = _added(change, axis=2) / np.float32(HOURS)
    evening = _added(yesterday[:, -3:], axis=1) / np.float32(3)
    trend = (_added(levels[:, -3:], axis=1) / np.float32(3)
             - _added(levels[:, :4], axis=1) / np.float32(4))
    columns = (
        yesterday, change[:, -2], change[:, 0],
        *(np.nan_to_num(past - naive, nan=0) / own for past in others[:3]),
        naive / own - 1, _spread(change) - np.float32(0.5),
        np.roll(yesterday, 1, axis=1), np.roll(yesterday, -1, axis=1),
        2 * levels[:, -1:], evening[:, None], 2 * trend[:, None], *others[3:])
    features = np.empty((*naive.shape, len(columns)), np.float32)
    for place, column in enumerate(columns):
        features[..., place] = column
    return _bounded(features)


def _spread(change: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, 7, 24) -> (k, 24) standard deviation over the week."""
    days = np.float32(change.shape[1])
    return np.sqrt(_added((change - (_added(change, axis=1) / days)[:, None])**2, axis=1) / days)


def _past(load: NDArray[np.float32], place: NDArray[np.int64],
          calendar: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """(k, 24) each, mean load of some of the 28 days before; NaN where there is none: those of
    the same weekday, those of the same kind (weekend or not), and all."""
    known = np.isfinite(load).astype(np.float32)
    load = np.where(known > 0, load, np.float32(0))
    weekday = _weekday(calendar)
    totals = np.zeros((3, len(place), HOURS), np.float32)
    counts = np.zeros_like(totals)
    for back in range(MONTH, 0, -1):
        value, there = load[place - back], known[place - back]
        alike = (((weekday - back) % WEEK >= 5) == (weekday >= 5)).astype(np.float32)[:, None]
        if back % WEEK == 0:
            totals[0] += value
            counts[0] += there
        totals[1] += value * alike
        counts[1] += there * alike
        totals[2] += value
        counts[2] += there
    return [np.where(count > 0, total / np.maximum(count, 1), _NOT_A_DAY)
            for total, count in zip(totals, counts, strict=True)]


def _weather(temperature_c: NDArray[np.float32],
             place: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """(k, 24) or (k, 1) each, all 0 where no thermometer read."""
    week = temperature_c[place[:, None] + np.arange(-WEEK, 0)]
    known = np.isfinite(week)
    there = known[:, -1].all(axis=1, keepdims=True)
    mean = _mean(np.where(known, week, np.float32(0)), known)
    yesterday = np.where(there, np.nan_to_num(week[:, -1]), np.float32(0))
    return [there.astype(np.float32), there * np.maximum(yesterday - 20, 0) / 10,
            there * np.maximum(12 - yesterday, 0) / 10,
            there * np.nan_to_num(yesterday - mean) / 5]


def _clock(calendar: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    season = 2 * np.pi * (calendar[:, None] % 365.25) / 365.25
    hour = 2 * np.pi * np.arange(HOURS)[None] / HOURS
    weekend = (_weekday(calendar) >= 5).astype(np.float64)[:, None]
    return [weekend, np.cos(season), np.sin(season), np.cos(hour), np.sin(hour),
            np.cos(2 * hour), np.sin(2 * hour)]


def _weekday(calendar: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 is Monday; 1970-01-01 was a Thursday."""
    return (calendar + 3) % WEEK


def _mean(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(k, days, 24) -> (k, 24), of ``values`` (0 where not known); NaN where nothing is."""
    count = known.sum(axis=1)
    return np.where(count > 0, _added(values, axis=1) / np.maximum(count, 1), _NOT_A_DAY).astype(
        np.float32)


def _added(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The sum over an axis, one after the other: numpy's own order depends on the other axes'
    sizes."""
    parts = np.moveaxis(values, axis, 0)
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _bounded(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(values, nan=0.0), -BOUND, BOUND).astype(np.float32)
