"""Names of partners that results or MLflow could not tell apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conf.schema import TaskConfig
from learning.load_checks import check
from learning.partner_names import SUMMARIES, alike, confused, metric_ends
from learning.results import Comparison, Estimate
from learning.table_checks import check_file
from learning.tables import Finding
from server.tracking_names import _row_metrics
from tests.learning.load_data import CONFIG, readings


@pytest.mark.parametrize("row", [*SUMMARIES, "north", "a/b"])
def test_ends_are_those_of_the_metrics(row: str) -> None:
    estimate = Estimate(0.5, 0.4, 0.6)
    comparison = Comparison(row, 10, *[estimate] * 6)
    assert {f"auc{end}" for end in metric_ends(row)} == set(_row_metrics("auc", comparison))


@pytest.mark.parametrize(("names", "said"), [
    (["north", "all"], "'all' is a word"), (["held out", "north"], "'held out' is a word"),
    (["north", "held_out"], "'held_out' is a word"), (["north", "naive"], "'naive' is a word"),
    (["gain_over_local_low", "north"], "'gain_over_local_low' is a word"),
    (["a/b", "a\\b", "c"], r"'a/b' and 'a\\b' would be one name in MLflow (a_b)"),
    (["Shop A", "Shop_A"], "'Shop A' and 'Shop_A' would be one name"),
    (["power", "local_power"], "'local_power' and 'power' would be one name"),
    (["Allgäu", "All", "allover", "north", "held", "b/a", "a/b"], ""),
])
def test_names_that_would_be_one(names: list[str], said: str) -> None:
    found = [what for what, _ in confused(names)]
    assert len(found) == bool(said) and all(what.startswith(said) for what in found)


def test_names_that_look_alike() -> None:
    assert list(alike(["North", "north", "south", "Strom AG", "StromAG", "straße"])) == [
        "'North' and 'north' differ in case or spaces alone",
        "'Strom AG' and 'StromAG' differ in case or spaces alone"]


def renamed(frame: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    return frame.with_columns(pl.col("partner").replace(names))


def of_partners(found: list[Finding]) -> dict[str, str]:
    return {severity: " ".join(finding.text for finding in found if finding.column == "partner"
                               and finding.severity == severity)
            for severity in ("error", "warning")}


@pytest.mark.parametrize("name", ["retail_repeat", "retail_cross"])
def test_tables_of_purchases_are_told(table: Path, task: TaskConfig, name: str) -> None:
    renamed(pl.read_csv(table), {"west": "held out", "south": "NORTH"}).write_csv(table)
    found = of_partners(check_file(replace(task, name=name))[0])
    assert "'held out' is a word" in found["error"] and "'NORTH' and 'north'" in found["warning"]


def test_tables_of_readings_are_told(tmp_path: Path) -> None:
    frame = renamed(readings(("a", "b", "c"), homes=2), {"a": "all", "b": "NORTH", "c": "north"})
    idle = pl.when(pl.col("customer") == "b-1").then(0.0).otherwise("load_kwh")
    frame.with_columns(load_kwh=idle).write_csv(tmp_path / "meters.csv")
    found = list(check(replace(CONFIG, path=str(tmp_path / "meters.csv"))).findings)
    partners = of_partners(found)
    assert "'all' is a word" in partners["error"] and "'NORTH' and 'north'" in partners["warning"]
    (nothing,) = [finding for finding in found if finding.column == "load_kwh"]
    assert nothing.severity == "warning" and "1 of 6 homes have used nothing" in nothing.text
