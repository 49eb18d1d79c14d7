"""Homes that do not exist, with the habits of those that do: for studies of scale, never data.

A model of one home is fitted to the training days of each training home, and to nothing else:

    sqrt(load) = weekday or weekend hour + season + weather + spread_hour * x,
    x = sqrt(v) * habit + sqrt(1 - v) * mood

Habit is a profile of the day that changes slowly from day to day, mood what lasts for hours: two
processes of unit variance, one fitted to the likeness of a day to the day and the week before,
the other to what is left, with the home's own skew. Independent noise, or one day's memory alone,
has no habit: the autocorrelation at a day's lag comes out at half of a real home's. A new home's
model is a mix of two fitted ones of the same utility with its own level and clock; its weather
is drawn from a fitted climate. No reading of a real home is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from numpy.typing import NDArray

from conf.schema import InvalidConfig
from learning.load_features import HOURS, WEEK, Home
from learning.load_readings import MAX_LOAD_KWH, READINGS
from learning.load_statistics import weather

DAYS = 364
HOMES_AT_ONCE = 400
"""Of a partner, drawn together: 32 MB each of load and of temperature."""
FIRST_DAY = 17_532
"""2018-01-01, a Monday."""
SHARES = (0.24, 0.2, 0.16, 0.14, 0.1, 0.08, 0.05, 0.03)
"""Of all simulated homes, by partner: a few large utilities, and small ones."""
PARTNERS = tuple(f"simulated-{number}" for number in range(1, len(SHARES) + 1))
"""Each is like one of the fitted utilities, in turn, with a level, a clock and a climate of its
own."""
_QUANTILES = np.array([0.002, 0.01, *np.linspace(0.05, 0.95, 19), 0.99, 0.998])
_BURN_IN = 28 * HOURS
_WEEKEND_RIDGE, _SEASON_RIDGE, _WEATHER_RIDGE = 20.0, 5000.0, 0.1
"""How an effect is pulled towards none: hours, hours, days of 10 °C. Season most, where there is
a thermometer: what weather explains must not go to it."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class HomeModel:
    """Numbers of the formula above, of the load over its mean. weekday, weekend: (24,), the
    latter as a difference; season: (2,) cosine and sine of the year; weather: (2,) per 10 °C of
    a day's mean above 18 and below 16; spread: (24,); habit: (3,) its part v of the variance,
    its likeness to the day before and to the hour before; mood: () its likeness to the hour
    before; quantiles: of mood's shocks, at _QUANTILES."""

    log_scale_kwh: Vector
    weekday: Vector
    weekend: Vector
    season: Vector
    weather: Vector
    spread: Vector
    habit: Vector
    mood: Vector
    quantiles: Vector

    def mixed(self, other: HomeModel, weight: float) -> HomeModel:
        """``weight`` of self, the rest of ``other``."""
        return HomeModel(*(weight * getattr(self, field.name)
                           + (1 - weight) * getattr(other, field.name)
                           for field in fields(self)))


@dataclass(frozen=True)
class Climate:
    """Outdoor temperature: coefficients (5,) of 1, yearly and daily cosine and sine; spread and
    day-to-day likeness of what is left of a day's mean."""

    cycle_c: Vector
    spread_c: float
    likeness: float


@dataclass(frozen=True)
class Generator:
    """Fitted models by utility, and its climate where a thermometer was read."""

    models: Mapping[str, tuple[HomeModel, ...]]
    climates: Mapping[str, Climate]

    @classmethod
    def fit(cls, homes: Mapping[str, Sequence[Home]]) -> Generator:
        """``homes``: by utility, training homes cut to their training days."""
        groups = cls.groups(homes)
        models = {name: tuple(fit_home(home) for home in part) for name, part in groups.items()}
        climates = {name: fit_climate(part) for name, part in groups.items()
                    if any(np.isfinite(home.temperature_c).any() for home in part)}
        return cls(models, climates)

    @staticmethod
    def groups(homes: Mapping[str, Sequence[Home]]) -> dict[str, list[Home]]:
        """Utilities of at least three homes; the last one by name takes in those of the others,
        of which a mix could not be made."""
        found = {name: list(homes[name]) for name in sorted(homes) if len(homes[name]) >= 3}
        if not found:
            raise InvalidConfig("task.simulated_homes", "no utility has three training homes")
        for name in sorted(homes):
            if name not in found:
                found[max(found)] += homes[name]
        return found

    def readings(self, homes: int, seed: int) -> pl.DataFrame:
        """All of :func:`frames` at once."""
        return pl.concat(list(self.frames(homes, seed)))

    def frames(self, homes: int, seed: int) -> Iterator[pl.DataFrame]:
        """Canonical readings of ``homes`` homes of eight partners, a year each, at most
        HOMES_AT_ONCE at a time. Every partner and customer is called simulated."""
        counts = np.diff(np.floor(np.cumsum((0, *SHARES)) * homes + 0.5).astype(int))
        kinds = sorted(self.models)
        for index, count in enumerate(counts):
            kind = kinds[index % len(kinds)]
            for first in range(0, int(count), HOMES_AT_ONCE):
                some = min(HOMES_AT_ONCE, int(count) - first)
                more = np.random.default_rng([seed, index, first]) if first else None
                own = self.homes(kind, some, np.random.default_rng([seed, index]), more)
                yield _frame(PARTNERS[index], first, own)

    def homes(self, kind: str, count: int, random: np.random.Generator,
              more: np.random.Generator | None = None) -> list[Home]:
        """``count`` homes of one partner that is like the utility ``kind``: its level, clock and
        climate come first from ``random``, then homes, or from ``more`` if it has many."""
        models, climate = self.models[kind], self.climates.get(kind)
        level, shift = random.normal(0, 0.2), int(random.integers(-1, 2))
        temperature = np.full((DAYS, HOURS), np.nan)
        if climate is not None:
            temperature = _temperature(climate, random.normal(0, 2.0), random)
        random = more or random
        drawn = [_draw(models, level, shift, random) for _ in range(count)]
        loads = _loads(drawn, _daily_degrees(temperature), random)
        return [Home(f"home-{number + 1:04d}", FIRST_DAY, load.astype(np.float32),
                     temperature.astype(np.float32)) for number, load in enumerate(loads)]


def _frame(partner: str, first: int, homes: Sequence[Home]) -> pl.DataFrame:
    """Canonical readings of homes that are numbered from ``first`` on."""
    hours = pl.Series(np.datetime64("1970-01-01T00", "us") + np.arange(
        FIRST_DAY * HOURS, (FIRST_DAY + DAYS) * HOURS).astype("timedelta64[h]"))
    return pl.concat([pl.DataFrame({
        "partner": [partner] * len(hours),
        "customer": [f"{partner}-home-{number:04d}"] * len(hours),
        "time": hours, "load_kwh": home.load_kwh.ravel().astype(np.float64),
        "temperature_c": pl.Series(home.temperature_c.ravel().astype(np.float64))
        .fill_nan(None)}, schema_overrides=READINGS)
        for number, home in enumerate(homes, first + 1)])


def fit_home(home: Home) -> HomeModel:
    """Least squares, then the residual's spread by hour, then its likeness to its past."""
    load = home.load_kwh.astype(np.float64)
    scale = max(float(np.nanmean(load)), 0.01)
    level = np.sqrt(load / scale)
    weekend = _weekend(home.first_day, len(home))
    degrees = _daily_degrees(home.temperature_c.astype(np.float64))
    by_weather = _fit_weather(load / scale, degrees) / (2 * np.nanmean(level))
    level = level - (degrees @ by_weather)[:, None]
    hour = np.eye(HOURS)[np.tile(np.arange(HOURS), len(home))]
    design = np.concatenate([
        hour, hour * np.repeat(weekend, HOURS)[:, None], _season(home.first_day, len(home))],
        axis=1)
    season = _SEASON_RIDGE if degrees.any() else _WEEKEND_RIDGE
    pull = np.repeat([1e-6, _WEEKEND_RIDGE, season], [HOURS, HOURS, 2])
    found = _ridge(design, level.ravel(), pull)
    rest = level - (design @ found).reshape(level.shape)
    spread = np.maximum(np.nanstd(rest, axis=0), 0.02)
    habit, mood, quantiles = _fit_likeness((rest / spread).ravel())
    return HomeModel(np.array(np.log(scale)), found[:HOURS], found[HOURS:2 * HOURS],
                     found[2 * HOURS:], by_weather, spread, habit, mood, quantiles)


def _fit_weather(load: Vector, degrees: Vector) -> Vector:
    """(2,) what a degree adds to a day's load over its mean: fitted to loads, because the mean
    of their roots would miss that weather acts most at the hours that are high anyway."""
    design = np.column_stack([degrees, np.ones(len(load))])
    pull = np.array([_WEATHER_RIDGE, _WEATHER_RIDGE, 1e-6])
    return _ridge(design, load.mean(axis=1), pull)[:2]


def _ridge(design: Vector, target: Vector, pull: Vector) -> Vector:
    known = np.isfinite(target)
    left = design[known]
    return np.linalg.solve(left.T @ left + np.diag(pull), left.T @ target[known])


def fit_climate(homes: Sequence[Home]) -> Climate:
    """From all thermometers of a utility; in most, one stands for all."""
    with_one = [home for home in homes if np.isfinite(home.temperature_c).any()]
    design = np.concatenate([_cycles(home.first_day, len(home)) for home in with_one])
    measured = np.concatenate([home.temperature_c.ravel() for home in with_one]).astype(np.float64)
    known = np.isfinite(measured)
    found = np.linalg.lstsq(design[known], measured[known], rcond=None)[0]
    rest = [(home.temperature_c.ravel() - _cycles(home.first_day, len(home)) @ found)
            .reshape(-1, HOURS).mean(axis=1) for home in with_one]
    pairs = np.concatenate([np.stack([part[1:], part[:-1]]) for part in rest], axis=1)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    return Climate(found, float(pairs.std()), float(np.clip(np.corrcoef(pairs)[0, 1], 0, 0.95)))


def _fit_likeness(x: Vector) -> tuple[Vector, Vector, Vector]:
    """(habit, mood, quantiles) of a residual of unit variance, from its autocorrelation g: habit
    alone reaches back a day, g(24) = v * day and g(168) = v * day^7; mood takes what habit
    leaves of g(1)."""
    hour, day, later, week = (_likeness(x, lag) for lag in (1, HOURS, HOURS + 1, HOURS * WEEK))
    day = float(np.clip(day, 0.02, 0.9))
    from_day = float(np.clip((max(week, 0.01) / day) ** (1 / (WEEK - 1)), 0.5, 0.98))
    part = min(day / from_day, 0.9)
    from_hour = float(np.clip(later / day, 0.0, 0.95))
    mood = float(np.clip((hour - part * from_hour) / (1 - part), 0.0, 0.95))
    shocks = x[1:] - hour * x[:-1]
    quantiles = np.quantile(shocks[np.isfinite(shocks)], _QUANTILES)
    return np.array([part, from_day, from_hour]), np.array(mood), quantiles


def _likeness(x: Vector, lag: int) -> float:
    both = np.isfinite(x[lag:]) & np.isfinite(x[:-lag])
    return float(np.corrcoef(x[lag:][both], x[:-lag][both])[0, 1]) if both.sum() > HOURS else 0.0


def _draw(models: Sequence[HomeModel], level: float, shift: int,
          random: np.random.Generator) -> HomeModel:
    """Mostly one of two fitted models, partly the other, with an own level and clock."""
    one, other = random.integers(len(models), size=2)
    mix = models[one].mixed(models[other], float(random.beta(0.5, 0.5)))
    own = shift + int(random.integers(-1, 2))
    values = {field.name: getattr(mix, field.name) for field in fields(mix)}
    for name in ("weekday", "weekend", "spread"):
        values[name] = np.roll(values[name], own)
    values["log_scale_kwh"] = values["log_scale_kwh"] + level + random.normal(0, 0.25)
    return HomeModel(**values)


def _loads(models: Sequence[HomeModel], degrees: Vector,
           random: np.random.Generator) -> Vector:
    """(n, DAYS, 24) kWh. degrees: (DAYS, 2)."""
    def stacked(name: str) -> Vector:
        return np.stack([getattr(model, name) for model in models])

    weekend = _weekend(FIRST_DAY, DAYS)[None, :, None]
    season = (stacked("season") @ _season(FIRST_DAY, DAYS).T).reshape(-1, DAYS, HOURS)
    mean = (stacked("weekday")[:, None] + weekend * stacked("weekend")[:, None] + season
            + (degrees @ stacked("weather").T).T[..., None])
    rest = _rest(models, random) * stacked("spread")[:, None]
    scale = np.exp(stacked("log_scale_kwh"))[:, None, None]
    return np.clip(scale * np.maximum(mean + rest, 0.0) ** 2, 0.0, MAX_LOAD_KWH)


def _rest(models: Sequence[HomeModel], random: np.random.Generator) -> Vector:
    """(n, DAYS, 24) x of the formula, after a burn-in."""
    hours = _BURN_IN + DAYS * HOURS
    part, from_day, from_hour = np.stack([model.habit for model in models], axis=1)
    habit = _chained(random.normal(size=(hours, len(models))), from_hour, 1)
    habit = _chained(habit, from_day, HOURS)
    shocks = np.stack([_shocks(model.quantiles, random.random(hours)) for model in models], axis=1)
    mood = _chained(shocks, np.array([float(model.mood) for model in models]), 1)
    both = np.sqrt(part) * habit + np.sqrt(1 - part) * mood
    return both[_BURN_IN:].T.reshape(len(models), DAYS, HOURS)


def _chained(shocks: Vector, likeness: Vector, lag: int) -> Vector:
    """(t, n) of unit variance, each value like the one ``lag`` before by (n,) ``likeness``."""
    fresh, out = np.sqrt(1 - likeness**2), shocks.copy()
    for start in range(lag, len(out), lag):
        rows = slice(start, min(start + lag, len(out)))
        out[rows] = likeness * out[start - lag:start][:rows.stop - start] + fresh * shocks[rows]
    return out


def _shocks(quantiles: Vector, chances: Vector) -> Vector:
    """Of mean 0 and variance 1."""
    drawn = np.interp(chances, _QUANTILES, quantiles)
    return (drawn - drawn.mean()) / max(float(drawn.std()), 1e-6)


def _daily_degrees(temperature_c: Vector) -> Vector:
    """(d, 24) -> (d, 2) mean over the day of :func:`learning.load_statistics.weather`; 0 where
    no thermometer was read all day."""
    return np.nan_to_num(weather(temperature_c).mean(axis=1))


def _temperature(climate: Climate, offset_c: float, random: np.random.Generator) -> Vector:
    """(DAYS, 24): cycles plus days that resemble the day before."""
    days = np.zeros(DAYS)
    shocks = random.normal(0, climate.spread_c * np.sqrt(1 - climate.likeness**2), DAYS)
    for day in range(1, DAYS):
        days[day] = climate.likeness * days[day - 1] + shocks[day]
    cycle = (_cycles(FIRST_DAY, DAYS) @ climate.cycle_c).reshape(DAYS, HOURS)
    return cycle + days[:, None] + offset_c


def _weekend(first_day: int, days: int) -> Vector:
    return ((first_day + np.arange(days) + 3) % WEEK >= 5).astype(np.float64)


def _season(first_day: int, days: int) -> Vector:
    """(24 days, 2)."""
    angle = 2 * np.pi * ((first_day + np.arange(days * HOURS) / HOURS) % 365.25) / 365.25
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _cycles(first_day: int, days: int) -> Vector:
    """(24 days, 5)."""
    hour = 2 * np.pi * (np.arange(days * HOURS) % HOURS) / HOURS
    return np.column_stack([np.ones(days * HOURS), _season(first_day, days), np.cos(hour),
                            np.sin(hour)])
