"""What is known at midnight: nothing of the day itself, nothing unbounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learning.load_features import BOUND, HOUR_FEATURES, Home, days_of


def home(days: int = 60, seed: int = 0) -> Home:
    random = np.random.default_rng(seed)
    shape = 1 + np.sin(np.arange(24) / 24 * 2 * np.pi)
    load = (shape * random.gamma(4, 0.1, size=(days, 24))).astype(np.float32)
    temperature = (15 + 10 * random.normal(size=(days, 24))).astype(np.float32)
    return Home("h", 20_000, load, temperature)


def with_load(base: Home, load: np.ndarray) -> Home:
    return replace(base, load_kwh=load.astype(np.float32))


def test_nothing_of_the_day_or_later_is_seen() -> None:
    base = home()
    later = base.load_kwh.copy()
    later[40:] = later[40:] * 3 + 1
    warm = base.temperature_c.copy()
    warm[40:] += 20
    one, two = days_of(base), days_of(replace(base, load_kwh=later, temperature_c=warm))
    (row,) = np.flatnonzero(one.day == 40)
    for name in ("features", "history", "naive_kwh", "scale_kwh"):
        np.testing.assert_array_equal(getattr(one, name)[:row + 1], getattr(two, name)[:row + 1])
        assert (getattr(one, name)[row + 1] != getattr(two, name)[row + 1]).any()
    assert (one.load_kwh[row] != two.load_kwh[row]).all()


def test_the_naive_rule_and_some_features_by_hand() -> None:
    base, made = home(), days_of(home())
    row, day = 33, 40
    assert made.day[row] == day
    week = base.load_kwh[day - 7:day]
    np.testing.assert_allclose(made.naive_kwh[row], week.mean(0), rtol=1e-5)
    assert made.scale_kwh[row] == pytest.approx(week.mean(), rel=1e-5)

    def feature(name: str) -> np.ndarray:
        return made.features[row, :, HOUR_FEATURES.index(name)]

    def relative(load: np.ndarray) -> np.ndarray:
        return np.clip((load - week.mean(0)) / week.mean(), -BOUND, BOUND)

    np.testing.assert_allclose(feature("yesterday"), relative(base.load_kwh[day - 1]), atol=1e-5)
    np.testing.assert_allclose(feature("last week"), relative(base.load_kwh[day - 7]), atol=1e-5)
    np.testing.assert_allclose(feature("same weekday, four weeks"), relative(
        base.load_kwh[[day - 7, day - 14, day - 21, day - 28]].mean(0)), atol=1e-5)
    weekday = (base.first_day + np.arange(60) + 3) % 7
    same = [back for back in range(day - 28, day) if (weekday[back] >= 5) == (weekday[day] >= 5)]
    np.testing.assert_allclose(feature("same kind of day"),
                               relative(base.load_kwh[same].mean(0)), atol=1e-5)
    np.testing.assert_array_equal(feature("weekend"), float(weekday[day] >= 5))
    np.testing.assert_allclose(made.history[row], np.clip(week / week.mean() - 1, -BOUND, BOUND),
                               atol=1e-5)


def test_a_larger_home_looks_the_same() -> None:
    base = home()
    small, large = days_of(base), days_of(with_load(base, base.load_kwh * 10))
    np.testing.assert_allclose(small.features, large.features, atol=1e-4)
    np.testing.assert_allclose(small.scale_kwh * 10, large.scale_kwh, rtol=1e-4)


def test_gaps_leave_days_out_and_no_more() -> None:
    base = home()
    load = base.load_kwh.copy()
    load[30, 5] = np.nan
    made = days_of(with_load(base, load))
    assert set(days_of(base).day) - set(made.day) == {30}
    assert np.isfinite(made.features).all() and np.isfinite(made.naive_kwh).all()
    load[20:24, 5] = np.nan
    assert 27 not in days_of(with_load(base, load)).day  # three readings of seven are too few


def test_without_a_thermometer_the_weather_is_silent() -> None:
    base = home()
    made = days_of(replace(base, temperature_c=np.full_like(base.temperature_c, np.nan)))
    names = ("temperature known", "warmth yesterday", "cold yesterday", "warmer than the week")
    places = [HOUR_FEATURES.index(name) for name in names]
    assert not made.features[..., places].any()
    assert days_of(base).features[..., places].any(axis=(0, 1)).all()


@pytest.mark.parametrize("hostile", [1e30, 0.0, 1e-30])
def test_hostile_values_stay_within_the_bounds(hostile: float) -> None:
    base = home()
    load = base.load_kwh.copy()
    load[20:25] = hostile
    made = days_of(Home("h", 20_000, load, np.full_like(load, 1e30)))
    with np.errstate(all="ignore"):
        assert np.isfinite(made.features).all() and np.abs(made.features).max() <= BOUND
        assert np.abs(made.history).max() <= BOUND


def test_short_homes_have_no_examples() -> None:
    for days in (0, 1, 7):
        assert len(days_of(home(days)).day) == 0
    assert list(days_of(home(8)).day) == [7]
