"""``veilsum validate-data`` refuses what a run would, and what it prints can be pasted."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conf.schema import (
    Config,
    FederationConfig,
    InvalidConfig,
    ModelConfig,
    PrivacyConfig,
    StrategyConfig,
    TaskConfig,
)
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


def test_usable_says_what_a_value_weighs(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(table), LISTED]) == 0
    assert re.search("In a simulation of this table values have 16 bits, .* a partner sends",
                     " ".join(capsys.readouterr().out.split()))
    own = table.rename(table.parent / "north.csv")
    pl.read_csv(own).filter(pl.col("partner") == "north").write_csv(own)
    assert main([str(own), LISTED, "--site", "north"]) == 0
    assert ("With peers of this size values have 16 bits"
            in " ".join(capsys.readouterr().out.split()))


@pytest.mark.parametrize(("settings", "told"), [
    (("privacy.epsilon=0.001", "strategy.rounds=100000"), "what would do is privacy.epsilon="),
    (("strategy.quorum=4",), "strategy.quorum: 4 is above the cohort of 3 partners"),
    (("privacy.colluders=3",), "privacy.colluders: 3 of a quorum of 3 leaves nobody")])
def test_sizes_that_cannot_train_are_not_usable(
        table: Path, settings: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, such a table was called usable, and a simulation refused it after it had read it."""
    assert main([str(table), LISTED, *settings]) == 2
    shown = capsys.readouterr()
    assert told in shown.err and "Usable" not in shown.out


def test_a_table_is_judged_as_it_would_be_divided(table: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    settings = (LISTED, "privacy.colluders=3")
    assert main([str(table), *settings, "federation.split_into=6"]) == 0
    assert main([str(table), *settings, "federation.split_into=3"]) == 2
    assert "3 of a quorum of 3" in capsys.readouterr().err


def test_the_impossible_is_said_before_arrays_are_built(
        task: TaskConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from learning import registry

    monkeypatch.setattr(registry, "load_partner", lambda *_: pytest.fail("arrays were built"))
    config = Config(task=task, model=ModelConfig(name="mlp", hidden=4096),
                    privacy=PrivacyConfig(epsilon=0.01))
    with pytest.raises(InvalidConfig, match="what would do is"):
        prepared(config, tmp_path / "run")


def test_what_no_table_could_cure_is_said_before_any_is_read(
        task: TaskConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments import simulate

    monkeypatch.setattr(simulate, "prepared", lambda *_: pytest.fail("the table was read"))
    config = Config(task=task, privacy=PrivacyConfig(epsilon=0.001),
                    strategy=StrategyConfig(rounds=100_000))
    with pytest.raises(InvalidConfig, match="with the smallest model and data"):
        simulate.simulate(config)
