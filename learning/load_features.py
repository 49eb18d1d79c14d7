"""A home's hourly readings, and what they say at midnight about the day that begins.

One example is one day of one home. Every feature is known at 00:00 of that day, is relative to
the home's own last week, and lies in [-BOUND, BOUND]; every other constant here is public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
    load = home.load_kwh
    if len(load) <= WEEK:
        return _nothing()
    week = sliding_window_view(load, WEEK, axis=0)[:-1].transpose(0, 2, 1)
    known = np.isfinite(week)
    enough = (known.sum(1) >= _FEWEST).all(1) & np.isfinite(load[WEEK:]).all(1)
    day = np.flatnonzero(enough) + WEEK
    if not len(day):
        return _nothing()
    week, known = week[day - WEEK], known[day - WEEK]
    naive = _mean(np.where(known, week, 0), known, axis=1)
    week = np.where(known, week, naive[:, None])
    scale = np.maximum(week.mean(axis=(1, 2)), LEAST_SCALE_KWH)
    features = _features(home, day, week, naive, scale)
    history = _bounded(week / scale[:, None, None] - 1)
    return HomeDays(day, features, history, load[day], naive, scale)


def _features(home: Home, day: NDArray[np.int64], week: NDArray[np.float32],
              naive: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """(k, 24, p) in the order of HOUR_FEATURES."""
    change = (week - naive[:, None]) / scale[:, None, None]
    yesterday = change[:, -1]
    levels = change.mean(axis=2)
    past = (np.nan_to_num(_past(home, day, kind) - naive, nan=0) / scale[:, None]
            for kind in ("weekday", "kind of day", "month"))
    return _bounded(np.stack(np.broadcast_arrays(
        yesterday, change[:, -2], change[:, 0], *past,
        naive / scale[:, None] - 1, change.std(axis=1) - 0.5,
        np.roll(yesterday, 1, axis=1), np.roll(yesterday, -1, axis=1),
        2 * levels[:, -1:], yesterday[:, -3:].mean(axis=1, keepdims=True),
        2 * (levels[:, -3:].mean(axis=1) - levels[:, :4].mean(axis=1))[:, None],
        *_weather(home, day), *_clock(home, day),
    ), axis=-1))


def _past(home: Home, day: NDArray[np.int64], kind: str) -> NDArray[np.float32]:
    """(k, 24) mean load of some of the 28 days before; NaN where there is none: those of the
    same weekday, those of the same kind (weekend or not), or all."""
    back = np.arange(MONTH, 0, -1)
    index = day[:, None] - back
    weekday = _weekday(home, day)[:, None]
    wanted = index >= 0
    if kind == "weekday":
        wanted = wanted & (back % WEEK == 0)
    elif kind == "kind of day":
        wanted = wanted & (((weekday - back) % WEEK >= 5) == (weekday >= 5))
    load = home.load_kwh[np.maximum(index, 0)]
    known = np.isfinite(load) & wanted[..., None]
    return _mean(np.where(known, load, 0), known, axis=1)


def _weather(home: Home, day: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """(k, 24) or (k, 1) each, all 0 where no thermometer read."""
    week = np.stack([home.temperature_c[day - back] for back in range(WEEK, 0, -1)], axis=1)
    known = np.isfinite(week)
    there = known[:, -1].all(axis=1, keepdims=True)
    mean = _mean(np.where(known, week, 0), known, axis=1)
    yesterday = np.where(there, np.nan_to_num(week[:, -1]), 0)
    return [there.astype(np.float32), there * np.maximum(yesterday - 20, 0) / 10,
            there * np.maximum(12 - yesterday, 0) / 10,
            there * np.nan_to_num(yesterday - mean) / 5]


def _clock(home: Home, day: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    season = 2 * np.pi * ((home.first_day + day)[:, None] % 365.25) / 365.25
    hour = 2 * np.pi * np.arange(HOURS)[None] / HOURS
    weekend = (_weekday(home, day) >= 5).astype(np.float64)[:, None]
    return [weekend, np.cos(season), np.sin(season), np.cos(hour), np.sin(hour),
            np.cos(2 * hour), np.sin(2 * hour)]


def _weekday(home: Home, day: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 is Monday; 1970-01-01 was a Thursday."""
    return (home.first_day + day + 3) % WEEK


def _mean(values: NDArray[np.float32], known: NDArray[np.bool_], axis: int) -> NDArray[np.float32]:
    """Of ``values`` (0 where not known); NaN where nothing is."""
    count = known.sum(axis=axis)
    return np.where(count > 0, values.sum(axis=axis) / np.maximum(count, 1), _NOT_A_DAY).astype(
        np.float32)


def _bounded(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(values, nan=0.0), -BOUND, BOUND).astype(np.float32)


def _nothing() -> HomeDays:
    empty = np.zeros((0, HOURS), np.float32)
    return HomeDays(np.zeros(0, np.int64), np.zeros((0, HOURS, len(HOUR_FEATURES)), np.float32),
                    np.zeros((0, WEEK, HOURS), np.float32), empty, empty, np.zeros(0, np.float32))
