"""A week is predicted from the weeks before it, and from its own customer alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.schema import InvalidConfig, TaskConfig
from experiments.validate_data import main
from learning.features import Events
from learning.retail import day_number
from learning.retail_demand import RetailDemand
from learning.retail_demand_features import BOUND, HABITS, MOST_UNITS, SPREAD, WEEKS, week_at
from tests.learning.conftest import CATEGORIES

DAY = day_number("2024-06-01")


@pytest.fixture
def demand(task: TaskConfig) -> TaskConfig:
    return replace(task, name="retail_demand", history_days=56, horizon_days=7, quiet_days=0,
                   horizons=4)


def events(rows: int = 3000, customers: int = 12, seed: int = 0) -> Events:
    random = np.random.default_rng(seed)
    return Events(
        tuple(f"c{number}" for number in range(customers)),
        random.integers(0, customers, rows), random.integers(-1, 3, rows),
        random.integers(DAY - 120, DAY + 40, rows),
        random.integers(1, 5, rows).astype(np.float32), random.random(rows).astype(np.float32))


def joined(*parts: Events) -> Events:
    return Events(parts[0].names, *(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("customer", "category", "day", "quantity", "value")))


def test_units_and_means_by_hand() -> None:
    day = np.array([0, 6, 7, -1, -8, -56, -57, -1], dtype=np.int64) + DAY
    quantity = np.array([1, 2, 50, 1, 30, 1, 8, 1], np.float32)
    category = np.array([0, 0, 0, 0, 0, 0, 0, -1])
    customer = np.zeros(8, np.int64)
    week = week_at(Events(("x", "y"), customer, category, day, quantity, quantity), DAY, 2)
    np.testing.assert_array_equal(week.units, [[3, 0], [0, 0]])
    np.testing.assert_allclose(week.mean_units, [[(1 + MOST_UNITS + 1) / WEEKS, 0], [0, 0]])
    np.testing.assert_array_equal(week.present, [True, False])
    mean = (1 + 8 + 1) / 8
    # It came in 3 of 8 weeks: the last, the one before, and the first.
    lately = np.array([1, 1, 2 / 4]) - 3 / 8
    np.testing.assert_allclose(week.features[0, 0], SPREAD * mean * lately)
    units, came = week.history[0, 0].T
    np.testing.assert_allclose(units, np.array([1 - mean, *[-mean] * 5, BOUND, 1 - mean]))
    np.testing.assert_allclose(
        came, SPREAD * mean * (np.array([1, 0, 0, 0, 0, 0, 1, 1]) - 3 / 8), rtol=1e-6)
    assert not week.history[1].any()
    assert week.inputs(False).shape == (2, 2 * len(HABITS))
    np.testing.assert_array_equal(week.inputs(True)[0, 6:], week.history[0].reshape(-1))


def test_nothing_of_the_week_is_seen() -> None:
    whole = events()
    one = week_at(whole, DAY, 3)
    two = week_at(joined(whole.between(0, DAY), events(seed=1).between(DAY, DAY + 40)), DAY, 3)
    for name in ("features", "history", "mean_units", "present"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.units != two.units).any()


def test_money_that_the_task_does_not_list_changes_nothing() -> None:
    """So that a site's policy may forbid the column."""
    assert "value" not in RetailDemand.columns
    whole = events()
    one, two = (week_at(replace(whole, value=value), DAY, 3)
                for value in (whole.value, 1e6 * whole.value[::-1]))
    for name in ("features", "history", "units", "mean_units", "present"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_leaving_one_customer_out_changes_no_other() -> None:
    whole = events()
    rows = whole.customer != 0
    rest = Events(whole.names, *(getattr(whole, name)[rows] for name in (
        "customer", "category", "day", "quantity", "value")))
    one, two = week_at(whole, DAY, 3), week_at(rest, DAY, 3)
    for name in ("features", "history", "units", "mean_units"):
        np.testing.assert_array_equal(getattr(one, name)[1:], getattr(two, name)[1:])
    assert not two.units[0].any() and not two.present[0]


@pytest.mark.parametrize("hostile", [1e30, -1e30, np.nan, np.inf, -np.inf])
def test_hostile_quantities_stay_within_the_bounds(hostile: float) -> None:
    whole = events()
    week = week_at(replace(whole, quantity=np.full_like(whole.quantity, hostile)), DAY, 3)
    for made in (week.features, week.history):
        assert np.isfinite(made).all() and np.abs(made).max() <= BOUND
    assert week.units.min() >= 0 and week.units.max() <= MOST_UNITS


def test_every_customer_has_every_week_and_goals_are_what_the_mean_leaves_open(
    demand: TaskConfig, tmp_path: Path
) -> None:
    made = RetailDemand(demand, 0)
    data = made.load(made.split_by_partner(tmp_path / "events")["west"])
    for part in (split.whole() for split in (data.validation, data.test, data.heldout)):
        assert part.targets.shape[1:] == (4, len(CATEGORIES)) and part.mask.all() and len(part)
    assert data.train.whole().features.shape[2] == made.shape.size
    assert made.shape.per_output == len(HABITS)
    test = data.test.whole()
    np.testing.assert_allclose(test.goals, test.targets - test.naive)
    # The weeks of the test begin where those of validation end.
    weeks = made.metric.statistics(test.naive, test)
    assert weeks.shape == (len(data.test), 4 * len(CATEGORIES) + 1)


def test_validation_lies_as_far_from_training_as_the_test_from_validation(
    demand: TaskConfig,
) -> None:
    settled = RetailDemand.prepare(demand)
    last, validation, test = map(day_number, (
        settled.train_snapshots[-1], settled.validation_snapshot, settled.test_snapshot))
    assert test - validation == validation - last == 28


@pytest.mark.parametrize(("key", "value"), [("history_days", 84), ("horizon_days", 14)])
def test_other_calendars_are_refused(demand: TaskConfig, key: str, value: int) -> None:
    with pytest.raises(InvalidConfig, match=f"task.{key}: must be"):
        RetailDemand(replace(demand, **{key: value}), 0)


def test_validate_data(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(table), "task=retail_demand", "task.categories=[BREAD,MILK]"]) == 0
    assert "Usable" in capsys.readouterr().out
