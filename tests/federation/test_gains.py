"""The table of gains, by partner and period."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import experiments.gains
import experiments.in_the_open
from conf.schema import Config
from experiments.gains import main
from learning.results import Comparison, Estimate


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, table: Path) -> None:
    """Every task is the small table's, for three rounds."""
    composed = experiments.in_the_open.composed

    def on_small_table(*overrides: str) -> Config:
        config = composed(*overrides, "strategy.rounds=3", f"task.path={table}",
                          "task.categories=[bread,coffee,milk]")
        return replace(config, seed=0)

    monkeypatch.setattr(experiments.in_the_open, "composed", on_small_table)


def test_the_tables_show_both_periods_and_all_ways(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "gains.md"
    document.write_text("<!-- gains retail_repeat: begin -->\n<!-- gains retail_repeat: end -->\n")
    assert main(["retail_repeat", "--seeds", "0", "--write", str(document)]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[-2:] == ["all", "within partners"] and len(names) >= 4
    assert {line.count("|") for line in lines} == {9}
    assert lines[0].count("the period before") == 2
    assert document.read_text().splitlines()[1:-1] == lines


def test_each_gain_stands_in_its_column(monkeypatch: pytest.MonkeyPatch, small: None) -> None:
    """Four different numbers, so that a swap would show."""
    def row(gain: float) -> Comparison:
        some = Estimate(0.5)
        return Comparison("all", 7, some, some, some, some, some, Estimate(gain))

    keys = [(period, heads) for period in ("test", "validation")
            for heads in (experiments.gains.SHARED, experiments.gains.OWN)]
    monkeypatch.setattr(experiments.gains, "_compared", lambda case: {
        key: {"all": row(0.1 * place)} for place, key in enumerate(keys)})
    head, _, line = experiments.gains.table("retail_repeat", (0,))
    cells = dict(zip(head.split("|"), line.split("|"), strict=True))
    assert cells[" gain over alone "] == " +0.000 "
    assert cells[" gain over alone with own intercepts "] == " +0.100 "
    assert cells[" gain over alone, the period before "] == " +0.200 "
    assert cells[" gain over alone with own intercepts, the period before "] == " +0.300 "


def test_a_document_without_a_place_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retail_repeat", "--write", str(tmp_path / "none.md")]) == 2
    assert capsys.readouterr().err.startswith("gains: --write")
