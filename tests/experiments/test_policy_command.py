"""``veilsum policy`` and ``veilsum exposure``, as a site's admin would use them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from client.policy_file import PolicyError, parse, read, starter
from conf.compose import to_json
from experiments.cli import main
from experiments.exposure import exposure
from tests.integration.test_deployment import _config

PARTNERS = ("north=40", "south=40")


def test_a_first_policy_takes_the_run_it_was_written_for(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = tmp_path / "policy.toml", tmp_path / "run.json"
    run.write_text(to_json(_config("sqlite:///mlflow.db")))
    assert main(["policy", "write", str(file), *PARTNERS]) == 0
    assert main(["policy", "check", str(run), str(file)]) == 0
    file.write_text("epsilon_per_run = 1\ncolumns = ['time']\n" + file.read_text())
    assert main(["policy", "check", str(run), str(file)]) == 2
    said = capsys.readouterr().err
    assert "epsilon_per_run: the run's privacy.epsilon of 3 is above 1" in said
    assert "columns: task=retail_repeat reads category, customer, quantity, value too" in said


def test_a_policy_is_not_written_over_another(tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("mine")
    assert main(["policy", "write", str(file), *PARTNERS]) == 2
    assert file.read_text() == "mine" and "edit it" in capsys.readouterr().err


@pytest.mark.parametrize("partners", [["north"], ["north=x"], ["north=40", "north=50"],
                                      ["north=40"], ["north=40", "North =9"], ["north=0", "b=1"]])
def test_partners_that_cannot_be_are_refused(partners: list[str], tmp_path: Path) -> None:
    assert main(["policy", "write", str(tmp_path / "policy.toml"), *partners]) == 2
    assert not (tmp_path / "policy.toml").exists()


@pytest.mark.parametrize(("text", "said"), [
    ("", "partners: a table of two partners at least"),
    ("colour = 1\n", "colour: no such key; there are calendars, categories"),
    ("least_quorum = 1\n", "least_quorum: must be a whole number from 2, got 1"),
    ("least_quorum = 3\n", "least_quorum: 3 of 2 known partners can never be"),
    ("least_customers = -1\n", "least_customers: must be a whole number from 0"),
    ("changed_sets = true\n", "changed_sets: must be a whole number from 0, got True"),
    ("epsilon_per_run = nan\n", "epsilon_per_run: must lie above 0, at most 100, got nan"),
    ("delta = '1e-5'\n", "delta: must lie above 0"),
    ("privacy = ['full']\n", "privacy: 'full' is none of noise_shares, local_dp, none"),
    ("encryption = []\n", "encryption: must be a list of names"),
    ("openings = 'sealed'\n", "openings: must be a list of names"),
    ("tasks = ['churn']\n", "tasks: 'churn' is none of"),
    ("days = ['2017-02-01', '2017-01-01']\n", "days: must be the first and the last"),
    ("most = 3\n", "most: is a table"),
    ("calendars = 3\n", "calendars: is a table"),
    ("[calendars]\nnorth = '2017'\n", "calendars.north: must be the first and the last"),
    ("time_zone = 'Paris'\n", "time_zone: must be a time zone such as"),
    ("[most]\nrounds = 0\nspeed = 2\n", "most.rounds: must be a whole number from 1, got 0"),
])
def test_a_fault_names_the_key_and_the_cure(text: str, said: str) -> None:
    partners = "" if not text else "[partners]\nnorth = 40\nsouth = 40\n"
    whole = partners + text if text.startswith("[") else text + partners
    with pytest.raises(PolicyError) as caught:
        parse(whole)
    assert said in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("a = 1\nleast_quorum = 0\n[partners]\nnorth = 1.5\nNORTH = 2\ndelta = 3\n"
              "rounds = 4\n[most]\nfar = 1\n")
    for said in ("a: no such key", "least_quorum: must", "partners.north: must", "look alike",
                 "partners.delta: is a key of the policy; move its line above [partners]",
                 "partners.rounds: is a key of the policy; move its line below [most]",
                 "most.far: no such key"):
        assert f"\n  {said}" in str(caught.value) or said in str(caught.value)


def test_every_line_of_the_first_policy_can_be_made_to_count(tmp_path: Path) -> None:
    """Without their marks the lines say the defaults, but for those whose default is anything."""
    marked = starter({"north": 40, "south": 40})
    plain = "\n".join(
        line[2:] if line.startswith("# ") and (" = " in line or line.startswith("# [")) else line
        for line in marked.splitlines())
    (tmp_path / "policy.toml").write_text(plain)
    policy = read(tmp_path / "policy.toml")
    assert policy.categories == ("MILK", "BREAD") and policy.days == ("2017-01-01", "2017-12-31")
    assert dict(policy.calendars) == dict.fromkeys(("north", "south"), "2017-01-01/2017-12-31")
    assert {**vars(policy), "categories": None, "days": None, "columns": None,
            "calendars": ()} == vars(parse(marked)) | {"tasks": policy.tasks}


def test_the_documented_policy_is_the_one_that_is_written() -> None:
    document = (Path(__file__).parents[2] / "docs" / "site_policy.md").read_text()
    shown = document.split("```toml\n")[1].split("```")[0]
    assert shown == starter({"north": 600, "south": 400, "west": 250})


def test_exposure_says_more_for_lower_quorums_and_larger_limits() -> None:
    policy = parse("[partners]\nnorth = 400\nsouth = 300\nwest = 200\n")
    config = _config("sqlite:///mlflow.db")
    small, large = (exposure(config, policy, limit, 1e-5) for limit in (3.0, 8.0))
    assert small.quorums == (3, 2) and small.rounds < large.rounds and small.runs >= 1
    for one, other in zip(small.rows, large.rows, strict=True):
        all_of_them, pairs = (one.estimates[count].relative_error for count in (3, 2))
        assert pairs < 0.8 * all_of_them
        assert other.estimates[2].relative_error < one.estimates[2].relative_error
        assert other.estimates[3].relative_error == pytest.approx(all_of_them, abs=0.05)


def test_a_learning_rate_of_nearly_zero_changes_no_number() -> None:
    """So that sites that step the model themselves do not lower what a changed set tells."""
    policy = parse("least_quorum = 2\n[partners]\nnorth = 400\nsouth = 300\nwest = 200\n")
    config = _config("sqlite:///mlflow.db")
    still = replace(config, strategy=replace(config.strategy, learning_rate=1e-12))
    one_round = replace(config, strategy=replace(config.strategy, rounds=1))
    errors = [[row.estimates[2].relative_error for row in exposure(run, policy, 3.0, 1e-5).rows]
              for run in (config, still, one_round)]
    assert errors[0] == errors[1]
    assert errors[2] == pytest.approx(errors[0], rel=0.05)


def test_the_command_prints_a_row_for_each_partner(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    assert main(["policy", "write", str(file), "north=400", "south=300", "west=200"]) == 0
    assert main(["exposure", "--policy", str(file), "strategy.rounds=20"]) == 0
    said = capsys.readouterr().out
    assert "An epsilon-limit of 3 at delta 1e-05 admits 20 rounds like this run's, 1 whole" in said
    assert all(name in said for name in ("north", "south", "west", "quorum 3", "quorum 2"))
    file.write_text(json.dumps({"a": 1}))
    assert main(["exposure", "--policy", str(file)]) == 2
