"""``veilsum validate-data`` refuses what a run would, and what it prints can be pasted."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conf.schema import Config, FederationConfig, InvalidConfig, TaskConfig
from experiments.simulate import prepared
from experiments.validate_data import main
from learning.load_checks import checked_readings
from learning.partner_calendars import of_table
from learning.tables import TableError, prepare_task
from tests.learning.conftest import CATEGORIES
from tests.learning.load_data import CONFIG, readings

LISTED = 'task.categories=[BREAD,MILK,"TEA, GREEN"]'


@pytest.mark.parametrize("name", ["Käufe [März] a,b.csv", "o'neil $x {1}.csv", "x[1].csv",
                                  "[bold]=.csv"])
def test_usable_is_followed_by_a_command_that_works(
    table: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    own = table.rename(table.parent / name)
    assert main([str(own), LISTED]) == 0
    shown = capsys.readouterr().out
    (line,) = re.findall(r"Usable: (veilsum simulate .*)", shown)
    seen: list[Config] = []
    from experiments.launch import compose_and_run

    assert compose_and_run("veilsum simulate", shlex.split(line)[2:], seen.append) == 0
    assert seen[0].task.path == str(own) and seen[0].task.categories == CATEGORIES


def test_an_error_names_the_command_of_its_task(tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Zähler [1].csv"
    readings(("north", "south"), homes=2).with_columns(customer=pl.lit("")).write_csv(path)
    with pytest.raises(TableError) as caught:
        checked_readings(replace(CONFIG, path=str(path)))
    (line,) = re.findall(r"`(veilsum validate-data .*)`", str(caught.value))
    assert main(shlex.split(line)[2:]) == 2
    shown = capsys.readouterr().out
    assert "is empty" in shown and "Zähler [1].csv" in shown


def test_a_partner_that_is_not_there_is_refused_by_both(
    task: TaskConfig, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = replace(task, holdout_partners=["nobody", "west"])
    told = "'nobody' is none of the partners, which are north, south, west"
    with pytest.raises(InvalidConfig, match=rf"task\.holdout_partners: {told}"):
        prepared(Config(task=named), tmp_path / "run")
    assert main([str(table), LISTED, "task.holdout_partners=[nobody,west]"]) == 2
    assert told in capsys.readouterr().err
    assert main([str(table), LISTED, "task.holdout_partners=[west]"]) == 0
    cross = replace(task, name="retail_cross", calendars={"nord": "2024-01-01/2024-10-26"})
    with pytest.raises(InvalidConfig, match=r"task\.calendars: 'nord' is none of the partners"):
        of_table(cross)
    assert main([str(table), "task=retail_cross",
                 "+task.calendars.nord=2024-01-01/2024-10-26"]) == 2
    assert "'nord' is none of the partners" in capsys.readouterr().err


def test_a_deployment_that_names_its_partners_is_told_too(task: TaskConfig) -> None:
    federation = FederationConfig(partners=["a", "b"], customers={"a": 9, "b": 9})
    named = replace(task, holdout_partners=["c"])
    with pytest.raises(InvalidConfig, match="'c' is none of the partners"):
        Config(task=named, federation=federation).validate()
    Config(task=named, federation=replace(federation, split_into=2)).validate()


def test_a_category_named_twice_is_refused_by_both(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidConfig, match="a category twice: MILK"):
        TaskConfig(categories=["MILK", "TEA", "MILK"]).validate()
    assert main([str(table), "task.categories=[MILK,MILK]"]) == 2
    assert "task.categories: names a category twice: MILK" in capsys.readouterr().err


@pytest.mark.parametrize("categories", [0, 3])
def test_rows_say_why_none_of_them_counts(task: TaskConfig, table: Path, categories: int) -> None:
    pl.read_csv(table).with_columns(time=pl.lit("03/26/2024")).write_csv(table)
    with pytest.raises(TableError, match=r"column time, row 2, 3, .*cannot read '03/26/2024'"):
        prepare_task(replace(task, top_categories=categories))
