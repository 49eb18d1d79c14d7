"""What makes a home's load look like a home's: numbers to compare real and simulated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from learning.load_features import HOURS, WEEK, Home, days_of

STATISTICS: Mapping[str, str] = {
    "habit_day": "autocorrelation with the same hour a day before",
    "habit_week": "autocorrelation with the same hour a week before",
    "spread": "standard deviation over mean of the hourly load",
    "naive_error": "error of the 7-day mean over the mean load",
    "peak": "busiest hour of the mean day over the mean",
    "weekend": "difference between the mean weekend day and weekday, over the mean",
    "warm_slope": "daily load per 10 °C above 18 °C, over the mean",
    "cold_slope": "daily load per 10 °C below 16 °C, over the mean",
}
WARM_C, COLD_C = 18.0, 16.0
"""Outdoors, above which homes cool, and below which they heat."""


def statistics(home: Home) -> dict[str, float]:
    """By the names of STATISTICS; NaN where a home has too little to say."""
    load = home.load_kwh.astype(np.float64)
    mean = float(np.nanmean(load)) if np.isfinite(load).any() else np.nan
    if not mean > 0:
        return dict.fromkeys(STATISTICS, np.nan)
    profile = daily_profile(home)
    made = days_of(home)
    errors = np.abs(made.load_kwh - made.naive_kwh)
    return {
        "habit_day": autocorrelation(load, HOURS),
        "habit_week": autocorrelation(load, HOURS * WEEK),
        "spread": float(np.nanstd(load)) / mean,
        "naive_error": float(errors.mean()) / mean if len(errors) else np.nan,
        "peak": float(profile.max()),
        "weekend": _weekend_effect(home, mean),
        **_slopes(home, mean),
    }


def table(homes: Sequence[Home]) -> dict[str, NDArray[np.float64]]:
    """Name -> (n,) one value a home."""
    rows = [statistics(home) for home in homes]
    return {name: np.array([row[name] for row in rows]) for name in STATISTICS}


def daily_profile(home: Home) -> NDArray[np.float64]:
    """(24,) mean day, over its mean."""
    profile = np.nanmean(home.load_kwh.astype(np.float64), axis=0)
    return profile / profile.mean()


def autocorrelation(load_kwh: NDArray[np.floating], lag_hours: int) -> float:
    """Of the hours that are there, both ends."""
    series = load_kwh.reshape(-1)
    now, before = series[lag_hours:], series[:-lag_hours]
    both = np.isfinite(now) & np.isfinite(before)
    if both.sum() < HOURS or now[both].std() == 0 or before[both].std() == 0:
        return float("nan")
    return float(np.corrcoef(now[both], before[both])[0, 1])


def _weekend_effect(home: Home, mean: float) -> float:
    """Mean absolute difference between the two mean days, hour by hour."""
    weekend = (home.first_day + np.arange(len(home)) + 3) % WEEK >= 5
    if not weekend.any() or weekend.all():
        return float("nan")
    days = [np.nanmean(home.load_kwh[rows], axis=0) for rows in (weekend, ~weekend)]
    return float(np.abs(days[0] - days[1]).mean()) / mean


def weather(temperature_c: NDArray[np.floating]) -> NDArray[np.floating]:
    """(...,) -> (..., 2): tens of degrees above WARM_C and below COLD_C."""
    return np.stack([np.maximum(temperature_c - WARM_C, 0), np.maximum(COLD_C - temperature_c, 0)],
                    axis=-1) / 10


def _slopes(home: Home, mean: float) -> dict[str, float]:
    """Least squares of the daily load on both at once; NaN without a thermometer."""
    degrees = weather(home.temperature_c.astype(np.float64)).mean(axis=1)
    daily = home.load_kwh.mean(axis=1) / mean
    both = np.isfinite(degrees).all(axis=1) & np.isfinite(daily)
    names = ("warm_slope", "cold_slope")
    if both.sum() < 2 * WEEK:
        return dict.fromkeys(names, float("nan"))
    design = np.column_stack([np.ones(both.sum()), degrees[both]])
    found = np.linalg.lstsq(design, daily[both], rcond=None)[0]
    return dict(zip(names, map(float, found[1:]), strict=True))
