"""Splits by time and customer, newcomers, and what a home adds to a partner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import Config, InvalidConfig, TaskConfig
from learning.customers import Customers, PartnerData
from learning.evaluation import exact
from learning.load_features import HOURS
from learning.load_readings import READINGS
from learning.registry import load_partner, make_model
from learning.training import customer_gradients, scores
from learning.utility_load import MAX_DAYS, UtilityLoad
from tests.learning.load_data import readings

Write = Callable[[pl.DataFrame], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(frame: pl.DataFrame) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        frame.write_parquet(path)
        return path

    return made


SHAPE = UtilityLoad(TaskConfig(name="utility_load"), 0, history=True).shape


def load(path: Path, seed: int = 0, history: bool = True, **settings: object) -> PartnerData:
    return UtilityLoad(TaskConfig(name="utility_load", **settings), seed, history).load(path)


def rows(customers: Customers) -> set[bytes]:
    return {row.tobytes() for row in customers.targets[customers.mask]}


NORTH = readings(("north",), homes=12)


def test_splits_follow_each_homes_own_time(write: Write) -> None:
    data = load(write(NORTH))
    n = len(data.train)
    assert n == len(data.validation) == len(data.test) and n + len(data.heldout) == 12
    assert 0 < len(data.heldout) < 12
    for split in (data.train, data.validation, data.test, data.heldout):
        part = split.whole()
        assert part.features.shape[1:] == (part.mask.shape[1], SHAPE.size)
        assert part.targets.shape[2] == HOURS
    parts = [rows(part.whole()) for part in (data.train, data.validation, data.test, data.heldout)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    days = 84 - 7
    assert data.train.whole().mask.sum(1).tolist() == [63 - 7] * n
    assert len(set.union(*parts[:3])) == n * days


def test_without_a_history_the_other_features_are_the_same(write: Write) -> None:
    path = write(NORTH)
    whole, bare = load(path), load(path, history=False, holdout_partners=[])
    assert bare.train.whole().features.shape[2] == SHAPE.outputs * SHAPE.per_output
    plain = bare.train.whole().features
    np.testing.assert_array_equal(plain, whole.train.whole().features[..., :plain.shape[2]])


def test_one_home_more_moves_no_other(write: Write) -> None:
    some = NORTH.filter(pl.col("customer") != "north-3")
    whole, less = load(write(NORTH)), load(write(some))
    for name in ("train", "validation", "test", "heldout"):
        assert rows(getattr(less, name).whole()) <= rows(getattr(whole, name).whole())


def test_only_named_partners_hold_homes_out(write: Write) -> None:
    path = write(NORTH)
    assert len(load(path, holdout_partners=["south"]).heldout) == 0
    assert len(load(path, holdout_partners=["north"]).heldout) > 0
    assert load(path, holdout_partners=["south"]).heldout.whole().features.shape[2] == (
        SHAPE.size)


def test_where_nothing_is_said_small_fetched_utilities_hold_nobody_out() -> None:
    bare = TaskConfig(name="utility_load")
    settled = UtilityLoad.prepare(bare)
    assert settled.holdout_partners == ["CA", "TX"] and UtilityLoad.prepare(settled) == settled
    for own in (replace(bare, path="meters.csv"), replace(bare, simulated_homes=800),
                replace(bare, holdout_partners=["UK"])):
        assert UtilityLoad.prepare(own) == own


def test_the_seed_decides_who_is_held_out(write: Write) -> None:
    path = write(NORTH)
    assert rows(load(path, 0).heldout.whole()) != rows(load(path, 1).heldout.whole())


def test_a_newcomer_knows_nothing_from_before(write: Write) -> None:
    settings = {"newcomer_partner": "north", "newcomer_customers": 3, "newcomer_days": 21}
    few, full = load(write(NORTH), **settings), load(write(NORTH))
    assert few.train.whole().mask.sum(1).tolist() == [21 - 7] * 3
    assert rows(few.train.whole()) <= rows(full.train.whole())
    assert rows(few.test.whole()) == rows(full.test.whole())
    first = pl.col("time").min().over("customer") + pl.duration(days=63 - 21)
    other = NORTH.with_columns(
        load_kwh=pl.when(pl.col("time") < first).then(9.0).otherwise(pl.col("load_kwh")))
    changed = load(write(other), **settings)
    np.testing.assert_array_equal(few.train.whole().features, changed.train.whole().features)
    np.testing.assert_array_equal(few.train.whole().goals, changed.train.whole().goals)


def test_long_histories_are_thinned_evenly(write: Write) -> None:
    data = load(write(readings(("north",), homes=2, days=400)), holdout_partners=["south"])
    assert data.train.whole().mask.sum(1).tolist() == [MAX_DAYS] * 2


def test_the_naive_rule_is_a_model_that_says_nothing(write: Write) -> None:
    config = Config(task=TaskConfig(name="utility_load"))
    data = load(write(NORTH), history=False)
    model = make_model(config)
    test = data.test.whole()
    np.testing.assert_allclose(scores(model, test), test.naive, atol=1e-6)
    metric, loss = UtilityLoad.metric, UtilityLoad.loss
    by_hand = np.abs(test.naive - test.targets).mean((1, 2)).mean()
    assert exact(metric, [(test, test.naive)]) == pytest.approx(by_hand, rel=1e-5)
    gradients = np.concatenate(list(customer_gradients(model, data.train.whole(), loss)))
    assert np.isfinite(gradients).all() and gradients.any(axis=1).all()


def test_a_file_is_read_once_and_shared_read_only(write: Write) -> None:
    config = Config(task=TaskConfig(name="utility_load"))
    path = write(NORTH)
    data = load_partner(config, path)
    assert load_partner(config, path) is data
    with pytest.raises(ValueError, match="read-only"):
        data.train.whole().goals[0] = 1


@pytest.mark.parametrize(("settings", "key"), [
    ({"validation_fraction": 0.0}, "task.validation_fraction"),
    ({"test_fraction": 0.5}, "task.test_fraction"),
    ({"newcomer_days": 7}, "task.newcomer_days"),
])
def test_impossible_settings_are_refused_by_key(settings: dict[str, object], key: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        UtilityLoad(TaskConfig(name="utility_load", **settings), 0)
    assert caught.value.key == key


def test_the_made_up_table_has_the_canonical_columns() -> None:
    assert dict(NORTH.schema) == dict(READINGS)
