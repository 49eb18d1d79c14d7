"""A federation that predicts numbers: its names, its direction and its warning."""

from __future__ import annotations

import math

import mlflow
import polars as pl
import pytest

from experiments.report import result_table
from experiments.simulate import simulate
from learning.sources import homes
from tests.learning.load_data import readings

PARTNERS = ("east", "north", "west")


@pytest.fixture
def load(configure, monkeypatch, tmp_path):  # type: ignore[no-untyped-def]
    """A configuration of the load task on made-up homes in place of the fetched ones."""
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(homes, "readings", lambda: readings(PARTNERS, homes=12))
    monkeypatch.setattr(homes, "digest", lambda: "made up")

    def make(**groups):  # type: ignore[no-untyped-def]
        task = {"name": "utility_load", "path": None, "holdout_partners": [*PARTNERS]}
        return configure(task=task, **groups)

    return make


@pytest.mark.parametrize("privacy", ["none", "local_dp", "noise_shares"])
def test_hours_are_learned_encrypted(load, privacy) -> None:  # type: ignore[no-untyped-def]
    result = simulate(load(privacy={"name": privacy}, strategy={"rounds": 20}))
    rows = {row.partner: row for row in result.comparisons}
    assert set(rows) == {"east", "north", "west", "all", "held out"}
    assert (result.metric, result.unit, result.higher_is_better) == ("mae", "kWh", False)
    whole = rows["all"]
    assert whole.gain_over_naive.value == pytest.approx(
        whole.naive.value - whole.federated.value)
    metrics = mlflow.MlflowClient(result.tracking_uri).get_run(result.mlflow_run_id).data.metrics
    assert {"val/mae", "oracle/val/mae", "oracle/val/mae_naive", "oracle/test/mae_local",
            "oracle/test/mae_gain_over_naive_low"} <= set(metrics)
    if privacy == "none":
        assert not result.warning
        assert whole.gain_over_naive.low > 0
        assert result.released["test/mae"] == pytest.approx(
            rows["held out"].federated.value, abs=1e-3)


def test_own_readings_hold_out_the_same_homes_everywhere(configure, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The sites do not see the path: what the oracle compares must be what they released."""
    path = tmp_path / "meters.csv"
    readings(PARTNERS, homes=12).drop("temperature_c").write_csv(
        path, datetime_format="%Y-%m-%d %H:%M")
    result = simulate(configure(task={"name": "utility_load", "path": str(path)},
                                privacy={"name": "none"}))
    row = next(row for row in result.comparisons if row.partner == "held out")
    assert row.customers > 3
    assert result.released["test/mae"] == pytest.approx(row.federated.value, abs=1e-3)


def test_few_homes_are_warned_of_noise(load, capsys) -> None:  # type: ignore[no-untyped-def]
    result = simulate(load())
    assert "customers are few for ε = 3" in result.warning
    assert "warning: " in capsys.readouterr().err
    run = mlflow.MlflowClient(result.tracking_uri).get_run(result.mlflow_run_id)
    assert run.data.tags["warning"] == result.warning
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(result_table(result))
    text = capture.get()
    assert "lower is better" in text and "customers are few" in text
    assert math.isfinite(result.epsilon)


def test_three_homes_have_no_interval(load, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    frame = readings(PARTNERS, homes=12)
    few = frame.filter((pl.col("partner") != "west")
                       | pl.col("customer").is_in(["west-0", "west-1", "west-2"]))
    monkeypatch.setattr(homes, "readings", lambda: few)
    result = simulate(load(privacy={"name": "none"}))
    row = next(row for row in result.comparisons if row.partner == "west")
    assert row.customers <= 3 and math.isfinite(row.federated.value)
    assert math.isnan(row.federated.low) and math.isnan(row.gain_over_local.high)
