"""The server as Flower starts it at a real operator: what it insists on before anybody spends, and
what a run that ends early leaves behind."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from flwr.app import Message

import server.checkpoint
from client.app import app as client_app
from client.export import open_model
from conf.compose import to_json
from conf.schema import Config, InvalidConfig
from experiments.local_grid import LocalGrid, run_server_app
from experiments.simulate import _key, _node, prepared
from keyholder.keys import SharedKey
from learning.results import RunResult
from server.app import app, read_result
from strategies.cohort import TooFewUpdates
from tests.federation.test_faults import FaultyGrid, _as_error, _of

ROUNDS = 3
GONE = ROUNDS + 1, "west"


@dataclass
class Deployment:
    """Sites that stay up while the operator runs ``app`` again and again."""

    grid: LocalGrid
    config: Config
    folder: Path

    def run(self, lost: tuple[int, str] | None = None, config: Config | None = None,
            state: str | None = None, **asked_too: object) -> RunResult:
        """``lost``: (round, partner) whose reply never comes."""
        def fault(message: Message) -> list[Message]:
            return [_as_error(message)] if lost and _of(message, lost[1], lost[0]) else [message]

        asked = {"config": to_json(config or self.config),
                 "state-path": str(self.folder / "operator") if state is None else state,
                 **{name.replace("_", "-"): value for name, value in asked_too.items()}}
        return read_result(run_server_app(app, FaultyGrid(self.grid, fault), asked))

    def spent(self) -> dict[str, int]:
        """Partner -> lines of its ledger; without those who spent nothing."""
        return {path.parent.name: len(lines)
                for path in (self.folder / "state").glob("*/ledger.jsonl")
                if (lines := path.read_text().splitlines())}


@pytest.fixture
def deploy(configure, tmp_path: Path) -> Callable[..., object]:  # type: ignore[no-untyped-def]
    """deploy(privacy={...}) -> context manager of a :class:`Deployment`."""

    @contextmanager
    def start(**groups: dict[str, object]) -> Iterator[Deployment]:
        config = prepared(configure(**groups), tmp_path)
        _key(config, tmp_path / "federation.key")
        nodes = {name: _node(tmp_path, name, config.federation.sites[name])
                 for name in config.federation.partners}
        config = replace(config, federation=replace(
            config.federation, name="deployment", sites={})).validate()
        (tmp_path / "operator").mkdir()
        with LocalGrid(client_app, nodes, {"config": to_json(config)}, workers=1) as grid:
            yield Deployment(grid, config, tmp_path)

    return start


def _recorded(config: Config):  # type: ignore[no-untyped-def]
    """(client, the only run)."""
    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def _weights(client: mlflow.MlflowClient, run_id: str) -> np.ndarray:
    (version,) = client.search_model_versions(f"run_id = '{run_id}'")
    model = mlflow.pytorch.load_model(version.source)
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("opening", ["revealed", "sealed"])
def test_a_test_that_fails_costs_the_test_alone(
    opening: str, deploy, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run failed and says so, its model is there; the same command adds the test to it."""
    with deploy(privacy={"epsilon": 100.0}, encryption={"opening": opening}) as deployment:
        with pytest.raises(TooFewUpdates, match="2 of at least 3"):
            deployment.run(lost=GONE)
        client, run = _recorded(deployment.config)
        assert (run.info.status, run.data.tags["error"]) == ("FAILED", "TooFewUpdates")
        assert "model is recorded" in run.data.tags["unfinished"]
        assert "test/auc" not in run.data.metrics
        first, spent = _model(client, run.info.run_id, deployment), deployment.spent()
        assert np.abs(first).max() > 0

        capsys.readouterr()
        assert deployment.run().mlflow_run_id == run.info.run_id
        said = capsys.readouterr().err
        assert "goes on after round 3 of 3: training is done, the test is left" in said
        assert not any(line.startswith("round ") for line in said.splitlines())
        client, run = _recorded(deployment.config)
        assert run.info.status == "FINISHED" and "test/auc" in run.data.metrics
        assert not {"error", "unfinished"} & set(run.data.tags)
        np.testing.assert_array_equal(_model(client, run.info.run_id, deployment), first)
        assert deployment.spent() == spent and set(spent) == {"east", "north", "west"}


def _model(client: mlflow.MlflowClient, run_id: str, deployment: Deployment) -> np.ndarray:
    """The run's only model, as who may reads it."""
    if deployment.config.encryption.opening == "revealed":
        return _weights(client, run_id)
    assert not client.search_model_versions(f"run_id = '{run_id}'")
    assert [file.path for file in client.list_artifacts(run_id, "sealed")] == [
        "sealed/model.veilsum"]
    sealed = Path(client.download_artifacts(
        run_id, "sealed/model.veilsum", str(deployment.folder))).read_bytes()
    opened = open_model(SharedKey.load(deployment.folder / "federation.key"), sealed)
    assert opened.rounds == ROUNDS
    return opened.content.vector


def test_an_experiment_that_mlflow_deleted_costs_nobody_anything(deploy) -> None:  # type: ignore[no-untyped-def]
    with deploy() as deployment:
        client = mlflow.MlflowClient(deployment.config.tracking.uri)
        client.delete_experiment(client.create_experiment("veilsum"))
        with pytest.raises(InvalidConfig, match=r"tracking\.experiment: .*was deleted"):
            deployment.run()
        assert deployment.spent() == {}


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = server.checkpoint.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("round-000002"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    with deploy(encryption={"opening": "sealed"}) as deployment:
        with monkeypatch.context() as broken:
            broken.setattr(server.checkpoint, "write_whole", full)
            with pytest.raises(InvalidConfig, match="state-path: nothing can be kept in") as ended:
                deployment.run()
        assert str(deployment.folder / "operator") in str(ended.value)
        deployment.run()
        lines = [json.loads(line) for path in (deployment.folder / "state").glob("*/ledger.jsonl")
                 for line in path.read_text().splitlines()]
        assert len({line["run_id"] for line in lines}) == 1


def test_an_operator_that_lost_its_folder_is_stopped_before_anybody_spends_again(deploy) -> None:  # type: ignore[no-untyped-def]
    """A run that failed before it began had nothing to lose, and is no reason to stop."""
    with deploy() as deployment:
        wrong = replace(deployment.config, strategy=replace(
            deployment.config.strategy, timeout_s=2.0))
        with pytest.raises(TooFewUpdates):
            _joined_by_two(deployment, wrong)
        with pytest.raises(TooFewUpdates, match="2 of at least 3"):
            deployment.run(lost=(2, "west"))
        spent = deployment.spent()
        (deployment.folder / "operator").rename(deployment.folder / "lost")
        (deployment.folder / "operator").mkdir()
        with pytest.raises(InvalidConfig, match=r"^state-path: .*begin-anew=true"):
            deployment.run()
        assert deployment.spent() == spent
        with pytest.raises(InvalidConfig, match="begin-anew: must be true or false"):
            deployment.run(begin_anew="yes")
        deployment.run(begin_anew=True)
        runs = {run.info.status for run in _all_runs(deployment.config)}
        assert runs == {"FINISHED", "FAILED"}


def _joined_by_two(deployment: Deployment, config: Config) -> None:
    state = deployment.folder / "state" / "west"
    state.rename(deployment.folder / "away")
    try:
        deployment.run(config=config)
    finally:
        (deployment.folder / "away").rename(state)


def _all_runs(config: Config):  # type: ignore[no-untyped-def]
    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    return client.search_runs([experiment.experiment_id])


@pytest.mark.parametrize("state", ["operator", "./operator", "absent", "file"])
def test_a_state_path_that_would_be_another_one_after_a_restart_is_refused(
    state: str, deploy, tmp_path: Path
) -> None:
    """Two of them are folders, as seen from where the server stands."""
    (tmp_path / "file").write_text("")
    with deploy() as deployment:
        path = str(tmp_path / state) if state in ("absent", "file") else state
        with pytest.raises(InvalidConfig, match="state-path: must be the whole path"):
            deployment.run(state=path)
        assert deployment.spent() == {} and not (tmp_path / "absent").exists()


@pytest.mark.parametrize(("changed", "refusal"), [
    ({"name": "local"}, "federation: .*federation=deployment"),
    ({"partners": [], "customers": {}}, r"federation\.partners: names nobody"),
])
def test_only_a_deployments_configuration_is_taken(changed, refusal: str, deploy) -> None:  # type: ignore[no-untyped-def]
    with deploy() as deployment:
        config = deployment.config
        federation = replace(config.federation, **changed)
        with pytest.raises(InvalidConfig, match=refusal):
            deployment.run(config=replace(config, federation=federation), state="")
        assert deployment.spent() == {}
