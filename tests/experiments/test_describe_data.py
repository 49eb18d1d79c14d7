"""A card says how data is prepared, holds none of it, and shows where partners differ."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from experiments.describe_data import cure, differences, fingerprint, main, read_card
from tests.learning.conftest import purchases
from tests.learning.load_data import readings


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One utility's own table, without a partner column."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "north.csv"
    readings(("north",), homes=12).drop("partner", "temperature_c").write_csv(
        path, datetime_format="%Y-%m-%d %H:%M")
    return path


def described(path: Path, name: str, *overrides: str) -> dict:
    assert main([str(path), *overrides, "--out", name]) == 0
    return read_card(Path(name))


def test_a_card_holds_settings_and_bounds_and_no_data(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    made = described(site, "north.json", "task=utility_load")
    assert made["columns"] == ["customer", "load_kwh", "time"]
    shared = made["shared"]
    assert shared["settings"]["name"] == "utility_load" and shared["feature_bound"] == 3
    assert shared["shape"]["outputs"] == 24 and "path" not in shared["settings"]
    text = Path("north.json").read_text()
    frame = pl.read_csv(site)
    assert "north-1" not in text and str(site) not in text
    assert not any(str(value) in text for value in frame["load_kwh"].head(50))
    assert made["fingerprint"] in capsys.readouterr().out


def test_partners_agree_whatever_their_data(
    site: Path, capsys: pytest.CaptureFixture
) -> None:
    other = site.with_name("south.csv")
    readings(("south",), homes=3, seed=5).drop("partner", "temperature_c").write_csv(
        other, datetime_format="%Y-%m-%d %H:%M")
    for path in (site, other):
        described(path, f"{path.stem}.json", "task=utility_load")
    assert main(["--agree", "north.json", "south.json"]) == 0
    assert "2 partners agree" in capsys.readouterr().out


def test_a_difference_is_named_with_its_cure(site: Path, capsys: pytest.CaptureFixture) -> None:
    described(site, "a.json", "task=utility_load")
    described(site, "b.json", "task=utility_load", "task.test_fraction=0.2", "seed=3")
    capsys.readouterr()
    assert main(["--agree", "a.json", "b.json"]) == 2
    said = capsys.readouterr().out
    assert "settings.test_fraction differs: give all the same task.test_fraction" in said
    assert "a: 0.125" in said and "b: 0.2" in said and "seed differs" in said


def test_vocabularies_meet_in_what_all_have(tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = purchases().filter(pl.col("partner") == "north")
    frame.write_csv("a.csv")
    frame.filter(pl.col("category") != "MILK").write_csv("b.csv")
    cards = {name: described(Path(f"{name}.csv"), f"{name}.json", "task.categories=[]",
                             "task.top_categories=4") for name in ("a", "b")}
    found = dict(differences(cards))
    assert "MILK" in found["settings.categories"]["a"]
    text = cure("settings.categories", found["settings.categories"])
    assert "BREAD" in text and "MILK" not in text


def test_a_changed_or_foreign_card_is_refused(site: Path, capsys: pytest.CaptureFixture) -> None:
    made = described(site, "a.json", "task=utility_load")
    made["shared"]["seed"] = 9
    Path("b.json").write_text(json.dumps(made))
    Path("c.json").write_text("[1]")
    for other, word in (("b.json", "changed"), ("c.json", "not a card"), ("d.json", "not a card"),
                        ("a.json", "two or more")):
        assert main(["--agree", "a.json", other]) == 2
        assert word in capsys.readouterr().err
    assert fingerprint(made["shared"]) != made["fingerprint"]


def test_a_table_that_cannot_be_used_gets_no_card(site: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    site.write_text("customer,time\nh,2024-01-01 00:00\n")
    assert main([str(site), "task=utility_load", "--out", "x.json"]) == 2
    assert "no column says the load" in capsys.readouterr().err
    assert not Path("x.json").exists()


@pytest.mark.parametrize(("task", "named"), [
    ("retail_repeat", False), ("retail_repeat", True), ("retail_demand", False),
    ("retail_cross", False)])
def test_the_file_of_a_retail_site_needs_no_partner(
    task: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = purchases().filter(pl.col("partner") == "north")
    frame.drop("partner").write_csv("own.csv")
    frame.write_csv("with_partner.csv")
    words = [f"task={task}"] + (["task.categories=[BREAD,MILK]"] if task != "retail_cross" else [])
    if named:
        words += ["task.train_snapshots=[2024-08-01]", "task.validation_snapshot=2024-09-01",
                  "task.test_snapshot=2024-10-01"]
    cards = [described(Path(f"{name}.csv"), f"{name}.json", *words)
             for name in ("own", "with_partner")]
    assert cards[0]["columns"] == sorted(set(frame.columns) - {"partner"})
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]
    settings = cards[0]["shared"]["settings"]
    assert task == "retail_cross" or settings["test_snapshot"].startswith("2024-")
    purchases().write_csv("all.csv")
    assert main(["all.csv", *words, "--out", "all.json"]) == 2


def test_homes_of_several_clocks_need_no_common_zone() -> None:
    said = cure("settings.time_zone", {"a": "Europe/Paris", "b": "Europe/London"})
    assert "all leave task.time_zone empty" in said


def test_a_card_that_cannot_be_written_is_told(site: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(site), "task=utility_load", "--out", "nodir/x.json"]) == 2
    told = capsys.readouterr().err
    assert "--out: nodir/x.json cannot be written: No such file" in told
    assert "Traceback" not in told


def test_options_and_settings_stand_in_any_order(site: Path) -> None:
    assert main(["--out", "x.json", str(site), "task=utility_load"]) == 0
    assert main([str(site), "--out", "y.json", "task=utility_load"]) == 0
    assert read_card(Path("x.json")) == read_card(Path("y.json"))
