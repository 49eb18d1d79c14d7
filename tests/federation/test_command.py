"""The command line as a person meets it: help, mistakes, Ctrl-C, sweeps."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from conf.compose import CONFIG_DIR
from experiments import cli
from experiments.cli import VERBS, main


def _overrides(table: Path, *more: str) -> list[str]:
    return [f"task.path={table}", "task.categories=[bread,coffee,milk]", "strategy.rounds=2",
            *more]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_an_unknown_verb_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulte"]) == 2
    assert "simulte" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]])
def test_help_and_cfg_show_the_keys(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *flags]) == 0
    shown = capsys.readouterr().out
    assert "epsilon: 3.0" in shown and "timeout_s" in shown


@pytest.mark.parametrize(("override", "message"), [
    ("privacy.epsilonn=3", "privacy.epsilonn: no such key. Did you mean privacy.epsilon"),
    ("privacy=foo", "noise_shares"),
    ("privacy.epsilon=-1", "privacy.epsilon: must be above 0"),
    ("privacy.epsilon", "missing EQUAL"),
    ("strategy.quorum=4", "strategy.quorum: 4 is above the cohort of 3"),
    ("encryption.bits=40", "encryption.bits"),
    ("strategy.opener=nobody", "strategy.opener: 'nobody' is not one of east, north, west"),
    ("task.newcomer_partner=x", "task.newcomer_partner"),
    ("task.newcomer_partner=west", "name both the partner and how many customers it brings"),
    ("task.newcomer_customers=5", "goes with task.newcomer_partner"),
    ("federation=deployment", "federation: a deployment is started by `flwr run`"),
    ("federation.customers.north=3", "write '+federation.customers.NAME=VALUE'"),
    ("task.calendars.north=x", "write '+task.calendars.NAME=VALUE'"),
    ("tracking.uri=bogus://x", "tracking.uri"),
    ("task.path=missing.csv", "missing.csv"),
    ("task.categories=[]", "task.categories"),
    ("task.categories=MILK", "task.categories: is a list: write 'task.categories=[A,B]'"),
    ("federation.customers=3", "write '+federation.customers.NAME=VALUE'"),
    ("experiment=quik", "Could not find 'experiment/quik'"),
    ("experiment=null", "Config group override must be a string or a list. Got NoneType; a group"),
    ("tuned=retail", "tuned: has no 'retail'; there are retail_cross"),
    ("+federation.customers.north=3", "federation.customers: is for a deployment"),
    ("task.simulated_homes=800", "task.simulated_homes: is for task=utility_load"),
    ("task.time_zone=Europe/Paris", "task.time_zone: is for task=utility_load"),
])
def test_a_mistake_gives_one_message_and_exit_code_2(
    table: Path, override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *_overrides(table, override)]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(("defect", "message"), [
    (lambda text: text.replace(",category", ",kind", 1), "category"),
    (lambda text: text.replace("bread", "", 1), "category"),
    (lambda text: text + text.splitlines()[1] + "\n", "repeats an earlier row"),
    (lambda text: text.replace("2017-", "20x7-", 1), "time"),
])
def test_a_broken_table_names_row_and_column(  # type: ignore[no-untyped-def]
    table: Path, defect, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken.csv"
    broken.write_text(defect(table.read_text()))
    assert main(["validate-data", str(broken)]) == 2
    assert message in "".join(capsys.readouterr())
    assert main(["simulate", *_overrides(broken)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown


def test_a_deployments_settings_work_as_its_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = (CONFIG_DIR / "federation" / "deployment.yaml").read_text()
    (example,) = [line.lstrip("# ") for line in text.splitlines() if "federation.partners=" in line]
    assert main(["simulate", "federation=deployment", *shlex.split(example), "--cfg", "job"]) == 0
    assert "north: 600" in capsys.readouterr().out


def test_flags_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "privacy.epsilon=1,3", "-m", "seed=1", "--cfg", "job"]) == 2
    assert "Only one of --run, --multirun, --cfg" in capsys.readouterr().err
    assert main(["simulate", "privacy.epsilon=4", "--cfg", "job", "seed=1"]) == 0
    shown = capsys.readouterr().out
    assert "epsilon: 4\n" in shown and "seed: 1" in shown


def test_more_customers_than_a_newcomer_has_are_refused_before_any_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    west = _overrides(table, "task.newcomer_partner=west")
    assert main(["newcomer", "--customers", "5,100000", *west]) == 2
    told = capsys.readouterr().err
    assert "west has " in told and "fewer than 100,000" in told and "Traceback" not in told
    assert not (tmp_path / "mlflow.db").exists()


def test_names_from_the_data_are_printed_as_they_are(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither as a terminal's markup nor as a formula in a figure."""
    monkeypatch.chdir(tmp_path)
    text = table.read_text().replace("north,", "werke [/süd],").replace("east,", r"US$\frac$,")
    named = tmp_path / "named.csv"
    named.write_text(text)
    assert main(["validate-data", str(named), "task.categories=[bread,coffee,milk]"]) == 0
    assert "werke [/süd]" in capsys.readouterr().out
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"  # MLflow remembers relative ones
    assert main(["simulate", *_overrides(named, store)]) == 0
    shown = capsys.readouterr().out
    assert "werke [/süd]" in shown and r"US$\frac$" in shown
    broken = tmp_path / "x [b].csv"
    broken.write_text(text.replace("bread", "", 1))
    assert main(["validate-data", str(broken)]) == 2
    assert "x [b].csv: findings" in capsys.readouterr().out


def _runs(folder: Path) -> tuple[mlflow.MlflowClient, list]:  # type: ignore[type-arg]
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("veilsum")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def test_a_sweep_ends_in_a_parent_run_with_one_figure(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "-m", *_overrides(table, "privacy.epsilon=1,8")]) == 0
    assert "privacy.epsilon=8" in capsys.readouterr().out
    client, runs = _runs(tmp_path)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "sweep" in run.data.tags]
    children = [run for run in runs
                if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.params["privacy.epsilon"] for run in children} == {"1.0", "8.0"}
    assert len(runs) == 3
    assert "privacy.epsilon" not in parent.data.params and parent.data.params["seed"] == "0"
    found = {file.path for folder in ("", "figures")
             for file in client.list_artifacts(parent.info.run_id, folder or None)}
    assert {"sweep.md", "figures/sweep.png"} <= found
    points = client.get_metric_history(parent.info.run_id, "oracle/test/auc")
    assert [point.step for point in points] == [1, 8]


def test_a_sweep_may_name_its_points_by_a_pattern(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"  # MLflow remembers relative ones
    assert main(["simulate", "-m", *_overrides(
        table, "encryption=glob(shared*,exclude=*rlwe)", "seed=range(0,2)", store)]) == 0
    _, runs = _runs(tmp_path)
    assert sorted(run.data.params["seed"] for run in runs if "seed" in run.data.params) == [
        "0", "1"]


def test_a_sweep_that_stops_leaves_a_failed_parent(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"  # MLflow remembers relative ones
    assert main(["simulate", "-m", *_overrides(table, "strategy.quorum=3,9", store)]) == 2
    assert "strategy.quorum" in capsys.readouterr().err
    _, runs = _runs(tmp_path)
    (parent,) = [run for run in runs if "sweep" in run.data.tags]
    assert parent.info.status == "FAILED" and parent.data.tags["error"] == "InvalidConfig"
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}


@pytest.mark.parametrize(("override", "message"), [
    ("privacy.epsilon=3,x", "privacy.epsilon: Value 'x'"),
    ("privacy.epsilon=3,200", "privacy.epsilon: 200.0 protects nobody"),
    ("model=linear,lineer", "Could not find 'model/lineer'"),
    ("tuned/model=retail_repeat-mlp,lineer", "it follows the task; ~tuned/model: nothing tuned"),
    ("task=retail_repeat,retail_demand", "retail_repeat has AUC, retail_demand has WAPE"),
])
def test_points_of_a_sweep_are_checked_before_the_first_runs(
    table: Path, override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "seed=1", "-m", *_overrides(table, override)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_cleanly_and_mark_the_run_as_killed(
    number: signal.Signals, code: int, table: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "experiments.cli", "simulate",
               *_overrides(table, "strategy.rounds=5000")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 1/5000  "):
                break
        time.sleep(1)
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == code
    assert "Traceback" not in rest and "killed" in rest
    client, (run,) = _runs(tmp_path)
    assert run.info.status == "KILLED"
    assert run.data.metrics["cohort/answered"] == 3
    steps = [p.step for p in client.get_metric_history(run.info.run_id, "cohort/answered")]
    assert steps == list(range(1, len(steps) + 1))


def test_ctrl_c_ends_any_verb_with_one_line(monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert main(["export", "x", "--key", "y"]) == 130
    assert capsys.readouterr().err.strip() == "veilsum export: stopped"


def test_sigterm_counts_once_and_only_while_a_verb_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second one must not cut the end short; a program that calls ``main`` has its own."""
    def told(name: str) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli.importlib, "import_module", told)
    assert main(["export", "x", "--key", "y"]) == 143
    assert capsys.readouterr().err.strip() == "veilsum export: stopped"
    assert signal.getsignal(signal.SIGTERM) is before
