"""The two further retail tasks through a whole encrypted federation, on a made-up table."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.simulate import simulate
from tests.learning.conftest import CATEGORIES, purchases


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "purchases.csv"
    purchases(customers=25).write_csv(path)
    return str(path)


CROSS = {"name": "retail_cross", "history_days": 56, "quiet_days": 0, "categories": []}
DEMAND = {"name": "retail_demand", "history_days": 56, "quiet_days": 0, "horizon_days": 7,
          "horizons": 4, "categories": CATEGORIES}


@pytest.mark.parametrize(("task", "metric", "better"), [
    (CROSS, "auc", True), (DEMAND, "wape", False)])
def test_a_run_ends_with_a_comparison_and_released_metrics(  # type: ignore[no-untyped-def]
    configure, table: str, task, metric: str, better: bool
) -> None:
    result = simulate(configure(
        task={**task, "path": table}, privacy={"name": "none"}))
    rows = {row.partner: row for row in result.comparisons}
    assert set(rows) == {"north", "south", "west", "all", "held out"}
    assert (result.metric, result.higher_is_better) == (metric, better)
    assert rows["all"].naive.low <= rows["all"].naive.value <= rows["all"].naive.high
    assert rows["held out"].customers > 3
    released, exact = result.released[f"test/{metric}"], rows["held out"].federated.value
    # A histogram is coarser than scores; sums are exact but for their grid.
    assert released == pytest.approx(exact, abs=0.1 if better else 0.01)


@pytest.mark.parametrize(("task", "model"), [
    ({"name": "retail_repeat", "categories": CATEGORIES}, "tcn"), (CROSS, "dpgru"),
    (DEMAND, "tcn")])
def test_models_that_read_the_weeks_before_train_on_an_own_table(  # type: ignore[no-untyped-def]
    configure, table: str, task, model: str
) -> None:
    result = simulate(configure(task={**task, "path": table}, model={"name": model, "hidden": 4},
                                privacy={"name": "none"}, strategy={"rounds": 5}))
    (whole,) = (row for row in result.comparisons if row.partner == "all")
    assert whole.federated.value != pytest.approx(0.5 if model == "dpgru" else whole.naive.value)
