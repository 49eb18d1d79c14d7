"""Nothing leaks from the future, between splits, or past the public bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.schema import InvalidConfig, TaskConfig
from experiments.in_the_open import composed
from learning.customers import Customers
from learning.features import BOUND, HISTORY_FEATURES, Events, Snapshot, snapshot_at
from learning.holdout import first_by_hash, held_out
from learning.registry import load_partner
from learning.retail_repeat import MAX_EXAMPLES, RetailRepeat, day_number, pack

DAY = day_number("2024-06-01")
CONFIG = TaskConfig(categories=["a", "b", "c"])
WEEKS = CONFIG.history_days // 7


def events(rows: int = 3000, customers: int = 12, seed: int = 0) -> Events:
    random = np.random.default_rng(seed)
    return Events(
        tuple(f"c{number}" for number in range(customers)),
        random.integers(0, customers, rows), random.integers(-1, 3, rows),
        random.integers(DAY - 120, DAY + 40, rows),
        random.integers(1, 5, rows).astype(np.float32), random.random(rows).astype(np.float32))


def features(snapshot: Snapshot) -> np.ndarray:
    """(n, c, f) of all pairs."""
    shape = snapshot.asked.shape
    customer, category = (index.ravel() for index in np.indices(shape))
    return snapshot.features(customer, category).reshape(*shape, -1)


def test_features_do_not_look_past_the_snapshot() -> None:
    whole = events()
    past = whole.between(0, DAY)
    later = events(seed=1).between(DAY, DAY + 100)
    other_future = Events(whole.names, *(
        np.concatenate([getattr(past, name), getattr(later, name)])
        for name in ("customer", "category", "day", "quantity", "value")))
    first, second = (snapshot_at(source, DAY, CONFIG, True) for source in (whole, other_future))
    np.testing.assert_array_equal(features(first), features(second))
    for name in ("naive", "asked", "present"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.targets != second.targets).any()


def test_weeks_by_hand() -> None:
    """Bought yesterday, a week ago (the last day of the week before) and 8 days ago; a visit for
    something else 84 days ago, on the first day of all; what comes at the cut is not seen."""
    day = np.array([-1, -7, -8, -84, 0], dtype=np.int64) + DAY
    category = np.array([1, 1, 1, -1, 1])
    one = np.ones(5, np.float32)
    at = snapshot_at(Events(("x",), np.zeros(5, np.int64), category, day, one, one), DAY, CONFIG,
                     history=True)
    weeks = features(at)[0, :, -2 * WEEKS:].reshape(3, WEEKS, 2)
    bought, came = np.zeros(WEEKS), np.zeros(WEEKS)
    bought[-2:], came[[0, -2, -1]] = [1, 2], [1, 1, 2]
    np.testing.assert_array_equal(weeks[1, :, 0], bought)
    assert not weeks[[0, 2], :, 0].any()
    np.testing.assert_array_equal(weeks[..., 1], np.tile(0.5 * came - 0.5, (3, 1)))


def test_features_see_only_the_history_window() -> None:
    whole = events()
    window = whole.between(DAY - CONFIG.history_days, DAY + CONFIG.horizon_days)
    first, second = (snapshot_at(source, DAY, CONFIG, True) for source in (whole, window))
    bare = features(snapshot_at(whole, DAY, CONFIG))
    np.testing.assert_array_equal(bare, features(first)[..., :bare.shape[-1]])
    np.testing.assert_array_equal(features(first), features(second))
    np.testing.assert_array_equal(first.targets, second.targets)


def test_targets_and_asked_by_hand() -> None:
    """Bought 30 days ago: asked. Bought yesterday: not. Bought again on day 0 and 13, not 14."""
    day = np.array([-30, 0, -30, -1, 13, -40, 14, -28], dtype=np.int64) + DAY
    category = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    customer = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    one = np.ones(8, np.float32)
    at = snapshot_at(Events(("x", "y"), customer, category, day, one, one), DAY, CONFIG)
    np.testing.assert_array_equal(at.asked, [[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(at.targets, [[1, 1, 0], [0, 0, 0]])
    assert at.present.all()


@pytest.mark.parametrize("hostile", [1e38, -1e38, np.nan, np.inf, 0.0])
def test_hostile_values_stay_within_the_bounds(hostile: float) -> None:
    base = events()
    bad = replace(base, quantity=np.full_like(base.quantity, hostile),
                  value=np.full_like(base.value, hostile))
    with np.errstate(all="ignore"):
        made = features(snapshot_at(bad, DAY, CONFIG, True))
    assert np.isfinite(made).all() and np.abs(made).max() <= BOUND


def test_a_repeated_customer_is_one_row_and_examples_are_capped() -> None:
    config = replace(CONFIG, categories=[f"k{i}" for i in range(40)], quiet_days=0)
    random = np.random.default_rng(0)
    size = 8000
    many = Events(("x", "y"), np.zeros(size, np.int64), random.integers(0, 40, size),
                  random.integers(DAY - 300, DAY, size), np.ones(size, np.float32),
                  np.ones(size, np.float32))
    days = [DAY - 56, DAY - 42, DAY - 28, DAY - 14]
    customers = pack([snapshot_at(many, day, config) for day in days], np.ones(2, np.bool_))
    assert customers.mask.shape == (1, MAX_EXAMPLES) and customers.mask.all()


def test_customers_without_examples_count_and_are_masked() -> None:
    visit = Events(("x",), np.zeros(1, np.int64), np.array([-1]), np.array([DAY - 3]),
                   np.ones(1, np.float32), np.ones(1, np.float32))
    customers = pack([snapshot_at(visit, DAY, CONFIG)], np.ones(1, np.bool_))
    assert len(customers) == 1 and not customers.mask.any()


def test_splits_are_disjoint_stable_and_keyed_by_the_seed() -> None:
    names = [f"c{number}" for number in range(5000)]
    out = held_out(names, 0, 0.2)
    assert 0.17 < out.mean() < 0.23
    np.testing.assert_array_equal(out[:100], held_out(names[:100], 0, 0.2))
    assert (out != held_out(names, 1, 0.2)).any()
    few, more = (first_by_hash(names, 0, ~out, count) for count in (10, 25))
    assert few.sum() == 10 and not (few & out).any() and not (few & ~more).any()


def _rows(customers: Customers) -> set[bytes]:
    return {row.tobytes() for row in customers.features[customers.mask.any(1)]}


def test_a_newcomer_keeps_its_test_customers(task: TaskConfig, tmp_path: Path) -> None:
    files = RetailRepeat(task, 0).split_by_partner(tmp_path / "events")
    assert sorted(files) == ["north", "south", "west"]
    full = RetailRepeat(task, 0).load(files["south"])
    cut = replace(task, newcomer_partner="south", newcomer_customers=5)
    few = RetailRepeat(cut, 0).load(files["south"])
    assert len(few.train) <= 5 < len(full.train)
    assert _rows(few.train.whole()) <= _rows(full.train.whole())
    for part in ("test", "heldout"):
        one, two = (getattr(data, part).whole() for data in (few, full))
        np.testing.assert_array_equal(one.features, two.features)
    other = RetailRepeat(cut, 0).load(files["north"])
    assert len(other.train) == len(RetailRepeat(task, 0).load(files["north"]).train)
    assert not _rows(full.heldout.whole()) & _rows(full.test.whole())


def test_the_seed_changes_who_is_held_out(task: TaskConfig, tmp_path: Path) -> None:
    path = RetailRepeat(task, 0).split_by_partner(tmp_path)["west"]
    assert _rows(RetailRepeat(task, 0).load(path).heldout.whole()) != _rows(
        RetailRepeat(task, 1).load(path).heldout.whole())


@pytest.mark.parametrize(("change", "key"), [
    ({"validation_snapshot": "2024-10-20"}, "task.test_snapshot"),
    ({"train_snapshots": ["2024-09-30"]}, "task.validation_snapshot"),
    ({"test_snapshot": "soon"}, "task.test_snapshot"),
    ({"categories": []}, "task.categories"),
    ({"categories": ["A", "A"]}, "task.categories"),
    ({"quiet_days": 84}, "task.quiet_days"),
    ({"path": "absent.csv", "test_snapshot": ""}, "task.path"),
])
def test_impossible_tasks_are_refused_by_key(
    task: TaskConfig, change: dict[str, object], key: str
) -> None:
    settled = replace(task, train_snapshots=["2024-09-01"], validation_snapshot="2024-10-01",
                      test_snapshot="2024-10-25")
    with pytest.raises(InvalidConfig) as caught:
        RetailRepeat(replace(settled, **change), 0)
    assert caught.value.key == key


def test_bundled_data_is_six_partners_and_described_without_data(tmp_path: Path) -> None:
    config = composed("task=retail_repeat")
    task = RetailRepeat(config.task, 0)
    files = task.split_by_partner(tmp_path)
    about = task.describe()
    assert tuple(files) == about["partners"] == tuple(f"area_{n}" for n in range(1, 7))
    assert set(about) == {"name", "source", "digest", "partners", "features"}
    data = load_partner(config, files["area_1"])
    assert 400 < len(data.train) < 800 and len(data.heldout) > 50
    assert (np.diff(data.train.whole().mask.sum(1)) >= 0).all(), "needless padding (fewest_first)"
    width = len(HISTORY_FEATURES) + len(config.task.categories)
    assert data.train.whole().features.shape[2] == width == len(task.feature_names)
    spread = data.train.whole().features[data.train.whole().mask][:, :len(HISTORY_FEATURES)]
    assert np.abs(spread.mean(0)).max() < 0.7 and spread.std(0).max() < 1.3
