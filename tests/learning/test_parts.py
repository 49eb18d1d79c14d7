"""Parts hold every customer once, and no customer shows in another's numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema import TaskConfig
from learning import customers as module
from learning.customers import CustomerParts, PartnerData
from learning.keeping import Budget
from learning.load_readings import READINGS
from learning.partner_file import COLUMNS
from learning.purchases import Purchases
from learning.registry import TASKS
from learning.retail import day_number

SPLITS = ("train", "validation", "test", "heldout")
RETAIL = TaskConfig(categories=["a", "b"], holdout_fraction=0.4,
                    train_snapshots=["2024-06-01"], validation_snapshot="2024-08-01",
                    test_snapshot="2024-10-01")
TASK: dict[str, TaskConfig] = {
    "retail_repeat": replace(RETAIL, quiet_days=3),
    "retail_cross": replace(RETAIL, name="retail_cross", history_days=56, quiet_days=0,
                            categories=[], train_snapshots=[], validation_snapshot="",
                            test_snapshot="", calendars={"north": "2024-01-01/2024-12-30"}),
    "retail_demand": replace(RETAIL, name="retail_demand", history_days=56, horizon_days=7,
                             quiet_days=0, horizons=4),
    "utility_load": TaskConfig(name="utility_load", holdout_fraction=0.4),
}


def purchases(customers: int, seed: int, first: str = "2024-01-01") -> pl.DataFrame:
    """Customers with many rows, few or one, at prices that no double holds exactly."""
    random = np.random.default_rng(seed)
    counts = random.choice([1, 4, 60, 300], customers)
    total = int(counts.sum())
    start = np.datetime64(first).astype("datetime64[us]")
    return pl.DataFrame({
        "partner": "north", "customer": np.repeat([f"c{n}" for n in range(customers)], counts),
        "time": start + random.integers(0, 364 * 24, total).astype("timedelta64[h]"),
        "category": random.choice(["a", "b", "c"], total), "quantity": random.random(total) + 0.1,
        "value": np.round(random.gamma(2, 2, total), 2) / 3,
    }).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def readings(customers: int, seed: int, first: str = "2023-11-05") -> pl.DataFrame:
    """Homes of other lengths, with gaps; some without a thermometer."""
    random = np.random.default_rng(seed)
    frames = []
    for number in range(customers):
        days = int(random.choice([3, 9, 40, 200]))
        begin = np.datetime64(first) + int(random.integers(0, 30))
        load = random.gamma(2, 0.3, days * 24)
        degrees = np.where(number % 3 == 0, np.nan, random.normal(10, 8, days * 24))
        frames.append(pl.DataFrame({
            "partner": "north", "customer": f"c{number}",
            "time": begin.astype("datetime64[us]") + np.arange(days * 24).astype("timedelta64[h]"),
            "load_kwh": load, "temperature_c": pl.Series(degrees).fill_nan(None),
        }).filter(pl.Series(random.random(days * 24) > 0.01)))
    return pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in READINGS.items())


MAKE: dict[str, Callable[[int, int], pl.DataFrame]] = {
    **dict.fromkeys(("retail_repeat", "retail_cross", "retail_demand"), purchases),
    "utility_load": readings}


def loaded(frame: pl.DataFrame, path: Path, config: TaskConfig, history: bool) -> PartnerData:
    frame.write_parquet(path)
    return TASKS[config.name](config, 0, history).load(path, "north")


def rows(split: CustomerParts) -> dict[bytes, int]:
    """Each customer's arrays without padding, to the bit: who it is shows by them alone."""
    found: dict[bytes, int] = {}
    for part in split.parts():
        for row in range(len(part)):
            mask = part.mask[row]
            assert not mask[int(mask.sum()):].any(), "padding lies at the end"
            key = b"".join(array[row][mask].tobytes() for array in (*part.arrays, part.goals)
                           if array is not None and array is not part.mask)
            found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("name", TASK)
def test_parts_are_the_whole_to_the_bit(name: str, history: bool, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    frame = MAKE[name](40, 1)
    whole = loaded(frame, tmp_path / "t.parquet", TASK[name], history)
    kept = [rows(getattr(whole, split)) for split in SPLITS]
    assert all(sum(1 for _ in getattr(whole, split).parts()) == 1 for split in SPLITS)
    monkeypatch.setattr(module, "KEPT", Budget(0))
    for values in (2**17, 1):
        monkeypatch.setattr(module, "PART_VALUES", values)
        data = loaded(frame, tmp_path / "t.parquet", TASK[name], history)
        for split, expected in zip(SPLITS, kept, strict=True):
            parts: CustomerParts = getattr(data, split)
            assert rows(parts) == rows(parts) == expected, "again the same"
            assert len(parts) == sum(map(len, parts.parts())) == len(getattr(whole, split))
            assert parts.examples == sum(int(part.mask.sum()) for part in parts.parts())
            sizes = [len(part) for part in parts.parts()]
            assert len(sizes) > 1 or len(parts) < 2 or values > 1
            assert values > 1 or max(sizes) <= 1


@pytest.mark.parametrize("name", TASK)
@given(seed=st.integers(0, 10_000), history=st.booleans(), one=st.integers(0, 5))
@settings(max_examples=5, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_customer_alone_is_what_it_is_among_others(
    name: str, tmp_path: Path, seed: int, history: bool, one: int
) -> None:
    """With others and in another order; with one category and one snapshot, too."""
    config, frame = TASK[name], MAKE[name](6, seed)
    if seed % 2 and config.categories:
        config = replace(config, categories=["a"])
    own = frame.filter(pl.col("customer") == f"c{one}")
    alone = loaded(own, tmp_path / "a.parquet", config, history)
    order = np.random.default_rng(seed).permutation(len(frame))
    mixed = frame if name == "utility_load" else frame[order]
    among = loaded(mixed, tmp_path / "b.parquet", config, history)
    others = loaded(frame.filter(pl.col("customer") != f"c{one}"), tmp_path / "c.parquet", config,
                    history)
    for split in SPLITS:
        mine, all_, rest = (rows(getattr(data, split)) for data in (alone, among, others))
        for key, count in rest.items():
            mine[key] = mine.get(key, 0) + count
        assert all_ == mine


@given(seed=st.integers(0, 10_000), history_days=st.integers(2, 400), categories=st.integers(1, 3),
       snapshots=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_odd_public_settings_let_nobody_into_anothers_features(
    seed: int, history_days: int, categories: int, snapshots: int
) -> None:
    from learning.features import snapshot_at

    config = replace(RETAIL, categories=["a", "b", "c"][:categories], history_days=history_days,
                     quiet_days=seed % history_days)
    held = Purchases.of([purchases(5, seed)], config.categories)
    everyone, day = np.arange(len(held)), day_number("2024-09-01") + snapshots
    whole = snapshot_at(held.events(everyone), day, config, True)
    pairs = np.arange(categories)
    for customer in everyone:
        alone = snapshot_at(held.events(np.array([customer])), day, config, True)
        np.testing.assert_array_equal(whole.features(np.full(categories, customer), pairs),
                                      alone.features(np.zeros(categories, np.int64), pairs))
        for field in ("naive", "targets", "asked", "present"):
            np.testing.assert_array_equal(getattr(whole, field)[customer],
                                          getattr(alone, field)[0])


def test_a_budget_is_given_back_with_its_owner() -> None:
    class Owner:
        pass

    budget, owner = Budget(10), Owner()
    assert budget.keep(owner, 6) and not budget.keep(owner, 6)
    del owner
    assert budget.keep(budget, 10)
