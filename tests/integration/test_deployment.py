"""The apps on a real SuperLink with real SuperNodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tomli_w

from client.policy_file import starter
from conf.compose import to_json
from conf.schema import Config, FederationConfig, StrategyConfig, TaskConfig, TrackingConfig

ROOT = Path(__file__).resolve().parents[2]
PARTNERS = ("north", "south")
CATEGORIES = ["bread", "coffee", "milk"]
SERVER = '''
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
import time

app = ServerApp()


@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    asked = [Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "train") for node in nodes]
    replies = grid.send_and_receive(asked, timeout=60)
    for line in sorted(reply.content["c"]["line"] for reply in replies):
        print("answer", line)
    print("config", context.run_config["config"])
'''
CLIENT = '''
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    secret = Path(context.node_config["data-path"]).read_text()
    line = context.node_config["partner"] + " " + secret
    return Message(RecordDict({"c": ConfigRecord({"line": line})}), reply_to=message)
'''


def _tiny_app(folder: Path) -> Path:
    folder.mkdir()
    (folder / "server_side.py").write_text(SERVER)
    (folder / "client_side.py").write_text(CLIENT)
    (folder / "pyproject.toml").write_text(tomli_w.dumps({
        "project": {"name": "tiny", "version": "0.1.0", "description": "a test",
                    "license": "Apache-2.0"},
        "tool": {"flwr": {"app": {
            "publisher": "tests", "config": {"config": ""},
            "components": {"serverapp": "server_side:app", "clientapp": "client_side:app"}}}},
    }))
    return folder


def test_each_node_has_its_own_config_and_a_json_config_arrives_unchanged(
    tmp_path: Path, federation
) -> None:
    nodes = []
    for partner in ("ada", "bea"):
        data = tmp_path / f'of "{partner}" = 1.txt'
        data.write_text(f"data of {partner}")
        nodes.append({"partner": partner, "data-path": str(data)})
    config = json.dumps({"quote": "it's \"so\" = 1", "path": "C:\\x", "umlaut": "ü \U0001f600"},
                        ensure_ascii=False)
    running = federation(nodes)
    log = running.run(_tiny_app(tmp_path / "tiny"), {"config": config})
    assert "answer ada data of ada\nanswer bea data of bea" in log
    assert f"config {config}" in log
    running.stop()
    assert running.remaining() == []


def _config(tracking_uri: str, rounds: int = 2, timeout_s: float = 60.0) -> Config:
    return replace(
        Config(),
        task=TaskConfig(
            categories=CATEGORIES, train_snapshots=["2017-06-01", "2017-07-01"],
            validation_snapshot="2017-08-01", test_snapshot="2017-09-01"),
        strategy=StrategyConfig(rounds=rounds, timeout_s=timeout_s),
        federation=FederationConfig(
            name="deployment", partners=list(PARTNERS), customers=dict.fromkeys(PARTNERS, 40)),
        tracking=TrackingConfig(uri=tracking_uri),
    ).validate()


def _purchases(partner: str) -> pl.DataFrame:
    """50 customers, each with a pace of its own for each category."""
    rng = np.random.default_rng(PARTNERS.index(partner))
    rows = [
        (partner, f"{partner}-{customer}", float(day), category)
        for customer in range(50) for category in CATEGORIES
        for day in np.cumsum(rng.uniform(0.6, 1.4, 60) * rng.uniform(4, 60)) if day < 300
    ]
    frame = pl.DataFrame(rows, schema=["partner", "customer", "day", "category"], orient="row")
    time = pl.datetime(2017, 1, 1) + pl.duration(minutes=(pl.col("day") * 1440).cast(pl.Int64))
    return frame.select("partner", "customer", time.alias("time"), "category")


def _site(folder: Path, partner: str, key: Path) -> dict[str, str]:
    """A partner's folder: its own purchases, its own copy of the key, its own state."""
    site = folder / partner
    (site / "state").mkdir(parents=True)
    _purchases(partner).write_csv(site / "purchases.csv", datetime_format="%Y-%m-%dT%H:%M:%S")
    (site / "federation.key").touch(0o600)
    (site / "federation.key").write_bytes(key.read_bytes())
    (site / "federation.key").chmod(0o600)
    (site / "state" / "policy.toml").write_text(starter(dict.fromkeys(PARTNERS, 40)))
    return {"partner": partner, "data-path": str(site / "purchases.csv"),
            "key-path": str(site / "federation.key"), "state-path": str(site / "state"),
            "epsilon-limit": 10.0}


def _sites(folder: Path, config: Config) -> list[dict[str, str]]:
    from encryption.parameters import choose_parameters
    from keyholder.keys import SharedKey

    SharedKey.generate(choose_parameters(
        config.encryption.name, len(PARTNERS), config.encryption.bits)).save(folder / "key")
    nodes = [_site(folder, partner, folder / "key") for partner in PARTNERS]
    (folder / "key").unlink()
    return nodes


# MLflow uses a loading strategy that SQLAlchemy 2.1 deprecates.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_two_rounds_of_the_real_apps(tmp_path: Path, federation, monkeypatch) -> None:
    """Each client reads only its own file and key, from its own node configuration."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    config = _config(f"sqlite:///{tmp_path}/mlflow.db")
    nodes = _sites(tmp_path, config)
    running = federation(nodes)
    running.run(ROOT, {"config": to_json(config)})

    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    answered = client.get_metric_history(run.info.run_id, "cohort/answered")
    assert [(entry.step, entry.value) for entry in answered] == [(1, 2.0), (2, 2.0)]
    assert run.data.metrics["cohort/refused"] == 0
    for node in nodes:
        assert (Path(node["state-path"]) / "ledger.jsonl").stat().st_size
    operator_saw = next(process.log for process in running.processes
                        if process.name == "superlink")
    for node in nodes:
        assert Path(node["data-path"]).parent.as_posix() not in operator_saw


@pytest.mark.slow  # for a minute Flower does not know that its ServerApp died
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ServerApp in /proc")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_server_that_was_killed_goes_on(tmp_path: Path, federation, monkeypatch) -> None:
    """The same ``flwr run`` again: no partner spends or draws noise twice, MLflow shows one run."""
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # Flower lets the nodes go about a minute after a ServerApp died.
    config = _config(f"sqlite:///{tmp_path}/mlflow.db", rounds=3, timeout_s=300.0)
    nodes = _sites(tmp_path, config)
    running = federation(nodes)
    (tmp_path / "operator").mkdir()
    asked = {"config": to_json(config), "state-path": str(tmp_path / "operator")}
    first = running.begin(ROOT, asked)
    first.wait_until(lambda: any((tmp_path / "operator").glob("*/round-000001.checkpoint")),
                     timeout_s=300)
    running.kill_server_app()
    spent = [(Path(node["state-path"]) / "ledger.jsonl").read_text() for node in nodes]
    assert "goes on after round" in running.run(ROOT, asked, timeout_s=600.0)

    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    answered = client.get_metric_history(run.info.run_id, "cohort/answered")
    assert sorted(entry.step for entry in answered) == [1, 2, 3]
    for node, before in zip(nodes, spent, strict=True):
        after = (Path(node["state-path"]) / "ledger.jsonl").read_text()
        assert after.startswith(before)
        lines = [json.loads(line) for line in after.splitlines()]
        assert len({line["run_id"] for line in lines}) == 1
        assert len({line["round"] for line in lines if line["round"]}) == 3
        assert len(lines) in (3, 4)
    assert not list((tmp_path / "operator").iterdir())
