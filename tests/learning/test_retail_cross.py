"""An example depends on its own customer's past alone, in no unit of any one retailer."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import InvalidConfig, TaskConfig
from experiments.validate_data import main
from learning.features import BOUND
from learning.partner_file import COLUMNS
from learning.retail_cross import MAX_EXAMPLES, RetailCross, bundled_calendars
from learning.retail_cross_features import FEATURES, examples_at, history_at
from learning.tables import TableError
from tests.learning.conftest import purchases

DAY = (date(2024, 6, 1) - date(1970, 1, 1)).days


@pytest.fixture
def cross(table: Path) -> TaskConfig:
    return TaskConfig(name="retail_cross", path=str(table), history_days=56, quiet_days=0)


@pytest.fixture
def days() -> pl.DataFrame:
    day = pl.col("time").dt.date().cast(pl.Int32).alias("day")
    return canonical(purchases()).group_by("customer", "category", day).agg(
        pl.col("quantity").sum(), pl.col("value").sum()).sort("customer", "category", "day")


def canonical(frame: pl.DataFrame) -> pl.DataFrame:
    times = pl.col("time").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us")
    return frame.with_columns(times, (pl.col("partner") + pl.col("customer")).alias("customer")
                              ).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def at(days: pl.DataFrame, day: int = DAY, quiet: int = 0) -> pl.DataFrame:
    return examples_at(days, day, 56, quiet, 14)


def bought(*ages: int, customer: str = "c", category: str = "k", value: float = 2) -> pl.DataFrame:
    return pl.DataFrame({"customer": customer, "category": category,
                         "day": pl.Series([DAY - age for age in sorted(ages, reverse=True)],
                                          dtype=pl.Int32),
                         "quantity": 1.0, "value": value})


def test_by_hand() -> None:
    frame = pl.concat([bought(28, 14, -3), bought(40, 1, category="l", value=6),
                       bought(60, category="old"), bought(14, customer="d")])
    asked = at(frame).filter(pl.col("customer") == "c")
    assert asked["category"].to_list() == ["k", "l"] and asked["target"].to_list() == [1, 0]
    k = dict(zip(FEATURES, asked.select(FEATURES).row(0), strict=True))
    assert k["frequency"] == pytest.approx(1.5 * (np.log(2) - 0.3))
    assert k["recency"] == pytest.approx(1 - 4 * (np.sqrt(14 / 56) - 0.6))
    assert k["overdue"] == pytest.approx(0, abs=1e-6)  # bought every 14 days, 14 days ago
    assert k["visits_since"] == pytest.approx(np.log(2) - 1)
    assert k["relative_spend"] == pytest.approx(np.log(2 / 4))
    assert at(frame, quiet=14)["category"].to_list() == []


def weeks(days: pl.DataFrame) -> np.ndarray:
    """(m, 8, 2) of the rows that are asked about."""
    return history_at(days, at(days), DAY, 56).reshape(-1, 8, 2)


def test_weeks_by_hand() -> None:
    frame = pl.concat([bought(14, 7, 1, 0, -3), bought(56, 1, category="l"),
                       bought(9, customer="d")])
    found = weeks(frame)
    np.testing.assert_array_equal(found[..., 0], [
        [0, 0, 0, 0, 0, 0, 1, 2], [1, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1, 0]])
    came = np.array([[1, 0, 0, 0, 0, 0, 1, 2]] * 2 + [[0, 0, 0, 0, 0, 0, 1, 0]])
    np.testing.assert_array_equal(found[..., 1], 0.5 * came - 0.5)


def test_nothing_after_the_snapshot_is_seen_but_by_targets(days: pl.DataFrame) -> None:
    later = days.with_columns(pl.when(pl.col("day") >= DAY).then(pl.col("day") + 5)
                              .otherwise(pl.col("day")).alias("day"))
    one, two = at(days), at(later)
    assert one.drop("target").equals(two.drop("target"))
    assert not one["target"].equals(two["target"])
    np.testing.assert_array_equal(weeks(days), weeks(later))


def test_leaving_one_customer_out_changes_no_other(days: pl.DataFrame) -> None:
    """What clipping bounds is a customer's contribution only if this holds."""
    name = days["customer"][0]
    others = pl.col("customer") != name
    expected, rest = at(days).filter(others), at(days.filter(others))
    assert len(rest) > 100
    np.testing.assert_array_equal(weeks(days)[(at(days)["customer"] != name).to_numpy()],
                                  weeks(days.filter(others)))
    keys = ["customer", "category", "target"]
    assert rest.select(keys).equals(expected.select(keys))
    np.testing.assert_allclose(*(frame.drop(keys).to_numpy() for frame in (rest, expected)),
                               atol=1e-6)


def test_no_currency_and_no_names(days: pl.DataFrame) -> None:
    other = days.with_columns(pl.col("value") * 35, pl.lit("x") + pl.col("category"))
    one, two = (at(frame).select(FEATURES).to_numpy() for frame in (days, other))
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("hostile", [1e30, 0.0, -1e30, float("nan"), float("inf")])
def test_hostile_values_stay_within_the_bounds(days: pl.DataFrame, hostile: float) -> None:
    bad = days.with_columns(pl.lit(hostile).alias("value"), pl.lit(hostile).alias("quantity"))
    features = at(bad).select(FEATURES).to_numpy()
    assert np.isfinite(features).all() and np.abs(features).max() <= BOUND


def test_each_partner_has_its_own_calendar(cross: TaskConfig, table: Path, tmp_path: Path) -> None:
    """One retailer's data ends years before the others': its examples are the same."""
    frame = pl.read_csv(table, infer_schema_length=None)
    expected = load(cross, tmp_path / "a", "west")
    times = pl.col("time").str.to_datetime("%Y-%m-%d %H:%M").dt.offset_by("-8401d")
    pl.concat([frame.filter(pl.col("partner") != "west"),
               frame.filter(pl.col("partner") == "west").with_columns(
                   times.dt.strftime("%Y-%m-%d %H:%M"))]).write_csv(table)
    moved = load(cross, tmp_path / "b", "west")
    for part in ("train", "validation", "test", "heldout"):
        one, two = (getattr(data, part).whole() for data in (expected, moved))
        np.testing.assert_allclose(one.features.sum((1, 2)), two.features.sum((1, 2)), atol=1e-3)
        assert one.targets.sum() == two.targets.sum() and len(one)


def load(config: TaskConfig, folder: Path, partner: str):
    task = RetailCross(config, 0)
    return task.load(task.split_by_partner(folder)[partner])


def test_the_most_examples_of_a_customer_and_who_is_held_out(
    cross: TaskConfig, table: Path, tmp_path: Path
) -> None:
    frame = purchases()
    many = pl.concat([frame.with_columns(pl.col("category") + f" {number}")
                      for number in range(30)])
    many.write_csv(table)
    data = load(cross, tmp_path / "events", "west")
    train = data.train.whole()
    assert train.mask.shape[1] == MAX_EXAMPLES and train.mask.sum(1).max() == MAX_EXAMPLES
    assert len(data.test) + len(data.heldout) <= 20 and len(data.heldout) > 0
    assert set(np.unique(train.targets)) == {0, 1}


def test_calendars_that_cannot_be_name_the_key(cross: TaskConfig, tmp_path: Path) -> None:
    files = RetailCross(cross, 0).split_by_partner(tmp_path / "events")
    site = replace(cross, path=None, calendars={"north": "2024-01-01/2024-10-26"})
    with pytest.raises(InvalidConfig, match=r"task\.calendars\.west: is missing"):
        RetailCross(site, 0).load(files["west"])
    for text, reason in (("2024-01-01", "not an interval"), ("2024-01-01/x", "not an ISO date"),
                         ("2024-01-01/2024-03-01", "61 days long and 98 are needed")):
        with pytest.raises(InvalidConfig, match=f"north: .*{reason}"):
            RetailCross(replace(site, calendars={"north": text}), 0)


def test_the_bundled_retailers_lie_on_three_continents_and_fit_their_calendars() -> None:
    task = RetailCross(TaskConfig(name="retail_cross", history_days=56, quiet_days=0), 0)
    partners = task.describe()["partners"]
    assert partners == tuple(sorted(bundled_calendars())) and len(partners) == 15
    assert {name.split("_")[0] for name in partners} == {"us", "tw", "uk"}


def test_validate_data(cross: TaskConfig, table: Path, tmp_path: Path,
                       capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(table), "task=retail_cross"]) == 0
    assert "Test snapshots: north 2024-10-" in capsys.readouterr().out
    frame = pl.read_csv(table, infer_schema_length=None)
    frame.filter((pl.col("partner") != "west") | (pl.col("time") < "2024-02-01")).write_csv(table)
    assert main([str(table), "task=retail_cross"]) == 2
    assert "west" in capsys.readouterr().out
    with pytest.raises(TableError, match="west"):
        RetailCross(replace(cross, calendars={
            "west": "2023-01-01/2024-01-31"}), 0).split_by_partner(tmp_path / "events")
