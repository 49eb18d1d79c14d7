"""Simulated homes keep the habits they are fitted to, see training alone, and say what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import InvalidConfig, TaskConfig
from experiments.simulated_homes import Compared, figure, main, markdown
from learning.load_features import Home
from learning.load_readings import READINGS, homes
from learning.load_statistics import autocorrelation, statistics, table
from learning.simulated_homes import DAYS, PARTNERS, Generator, fit_home
from learning.sources import homes as source
from learning.sources.wheels import SourceMissing
from learning.utility_load import UtilityLoad
from tests.learning.load_data import readings

CLOSE = {"habit_day": 0.1, "habit_week": 0.15, "spread": 0.15, "naive_error": 0.08, "peak": 0.3,
         "weekend": 0.06}
"""How far the medians of simulated and real homes may lie apart."""


def habitual(habit: float, warm: float = 0.0, seed: int = 0, days: int = 280) -> Home:
    """A home whose mean day changes slowly, by ``habit``, and that cools by ``warm``."""
    random = np.random.default_rng(seed)
    shape = 1 + np.exp(-((np.arange(24) - 18) / 3.0) ** 2)
    slow = np.zeros((days, 24))
    for day in range(1, days):
        fresh = np.convolve(random.normal(size=26), np.ones(3) / 3**0.5, mode="valid")
        slow[day] = habit * slow[day - 1] + (1 - habit**2) ** 0.5 * fresh
    temperature = 20 + 8 * np.sin(np.arange(days) / 20)[:, None] + random.normal(size=(days, 24))
    load = shape * (1 + 0.3 * slow + 0.1 * random.normal(size=(days, 24)))
    load = load + warm * np.maximum(temperature.mean(1, keepdims=True) - 18, 0) / 10
    return Home(f"h{seed}", 17_600, np.maximum(load, 0).astype(np.float32),
                temperature.astype(np.float32))


def group(habit: float, warm: float = 0.0) -> list[Home]:
    return [habitual(habit, warm, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def fitted() -> tuple[dict[str, list[Home]], Generator]:
    training = {"A": group(0.9), "B": group(0.5), "C": [habitual(0.7)], "D": group(0.7, warm=1.0)}
    return training, Generator.fit(training)


def test_habits_and_weather_come_back(fitted: tuple[Mapping[str, Sequence[Home]], Generator]
                                      ) -> None:
    training, generator = fitted
    random = np.random.default_rng(0)
    made = {kind: table(generator.homes(kind, 20, random)) for kind in ("A", "B", "D")}
    for kind in ("A", "B"):
        one, known = made[kind], table(training[kind])
        for name in ("habit_day", "habit_week", "naive_error", "spread"):
            assert np.median(one[name]) == pytest.approx(np.median(known[name]), abs=0.12), name
    assert np.median(made["A"]["habit_week"]) > np.median(made["B"]["habit_week"]) + 0.1
    assert np.median(made["D"]["warm_slope"]) > 0.2 > np.median(made["A"]["warm_slope"])


def test_one_days_memory_alone_would_be_noticed() -> None:
    """The guard can fail: without the slow habit the autocorrelation is far below."""
    home = habitual(0.9)
    model = fit_home(home)
    assert model.habit[0] > 0.3 and model.habit[1] > 0.7
    shuffled = np.random.default_rng(0).permutation(home.load_kwh)
    assert autocorrelation(home.load_kwh, 24) > autocorrelation(shuffled, 24) + CLOSE["habit_day"]


def test_partners_differ_are_unequal_and_called_simulated(
        fitted: tuple[Mapping[str, Sequence[Home]], Generator]) -> None:
    frame = fitted[1].readings(100, seed=0)
    assert dict(frame.schema) == dict(READINGS)
    assert sorted(frame["partner"].unique()) == sorted(PARTNERS)
    assert frame["customer"].str.starts_with("simulated-").all()
    counts = frame.group_by("partner").agg(pl.col("customer").n_unique())["customer"]
    assert counts.sum() == 100 and counts.max() > 4 * counts.min() > 0
    assert len(frame) == 100 * DAYS * 24 and (frame["load_kwh"] >= 0).all()
    levels = frame.group_by("partner").agg(pl.col("load_kwh").mean())["load_kwh"]
    assert levels.max() > 1.2 * levels.min()


def test_a_seed_decides_all(fitted: tuple[Mapping[str, Sequence[Home]], Generator]) -> None:
    one, again, other = (fitted[1].readings(100, seed) for seed in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)


def test_only_training_homes_and_days_are_seen() -> None:
    real = readings(("CA", "TX"), homes=8)
    task = UtilityLoad(UtilityLoad.prepare(TaskConfig(name="utility_load")), 0)
    training = task.training_homes(real)
    assert sum(map(len, training.values())) < 16
    assert all(len(home) == 63 for part in training.values() for home in part)
    names = [home.name for part in training.values() for home in part]
    later = pl.col("time") >= pl.col("time").min().over("customer") + pl.duration(days=63)
    changed = real.with_columns(load_kwh=pl.when(
        later | ~pl.col("customer").is_in(names)).then(99.0).otherwise(pl.col("load_kwh")))
    one, two = (Generator.fit(task.training_homes(frame)).readings(100, 0)
                for frame in (real, changed))
    assert one.equals(two)


def test_the_task_simulates_in_place_of_the_real_homes(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "readings", lambda: readings(("CA", "TX"), homes=8))
    config = TaskConfig(name="utility_load", simulated_homes=100)
    task = UtilityLoad(config, 0)
    files = task.split_by_partner(tmp_path)
    assert tuple(files) == PARTNERS == task.describe()["partners"]
    data = task.load(files[PARTNERS[0]])
    assert len(data.heldout) > 0 and len(data.train) + len(data.heldout) == 24
    assert "simulated" in str(task.describe()["name"])


@pytest.mark.parametrize("settings", [{"simulated_homes": 20}, {"simulated_homes": -1},
                                      {"simulated_homes": 200, "path": "own.csv"}])
def test_impossible_numbers_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match=r"task\.simulated_homes"):
        UtilityLoad(TaskConfig(name="utility_load", **settings), 0)


def test_statistics_by_hand() -> None:
    flat = Home("h", 0, np.ones((30, 24), np.float32), np.full((30, 24), np.nan, np.float32))
    found = statistics(flat)
    assert found["spread"] == 0 and found["naive_error"] == 0 and found["peak"] == 1
    assert np.isnan(found["habit_day"]) and np.isnan(found["warm_slope"])
    daily = np.tile(np.arange(24), (30, 1)).astype(np.float32)
    assert autocorrelation(daily, 24) == pytest.approx(1)


def test_simulated_homes_are_like_the_real_ones(real_cache: Path, tmp_path: Path) -> None:
    try:
        frame = source.readings()
    except SourceMissing as error:
        pytest.skip(f"the real homes could not be fetched: {error}")
    task = UtilityLoad(TaskConfig(name="utility_load", holdout_partners=["CA", "TX"]), 0)
    compared = Compared.of(task.training_homes(frame), homes=120, seed=0)
    for kind in ("CA", "TX"):
        real, made = (table(part[kind]) for part in (compared.real, compared.simulated))
        for name, distance in CLOSE.items():
            assert np.median(made[name]) == pytest.approx(np.median(real[name]), abs=distance), (
                kind, name)
    path = tmp_path / "figure.png"
    figure(compared).savefig(path, dpi=40)
    assert path.stat().st_size > 10_000
    assert len({line.count("|") for line in markdown(compared).splitlines()}) == 1


@pytest.mark.parametrize("argv", [["out=x.pdf"], ["homes=many", "out=x.png"], ["what=1"], []])
def test_the_command_says_what_is_wrong(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(argv) == 2
    assert "simulated_homes: " in capsys.readouterr().err


def test_a_file_of_simulated_homes_reads_back(
        tmp_path: Path, fitted: tuple[Mapping[str, Sequence[Home]], Generator]) -> None:
    frame = fitted[1].readings(100, seed=0).filter(pl.col("partner") == PARTNERS[-1])
    found = list(homes(frame))
    assert [len(home) for home in found] == [DAYS] * len(found)
    assert all(np.isfinite(home.load_kwh).all() for home in found)
