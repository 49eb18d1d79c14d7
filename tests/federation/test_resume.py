"""A run that dies at any point goes on with the same command, and no partner answers twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

import experiments.simulate
import server.app
from conf.schema import Config, InvalidConfig
from learning.results import RunResult
from server.checkpoint import Checkpoints
from server.recording import Recording
from strategies.fedavg import EncryptedFedAvg, OpeningFailed
from strategies.fold import Folded

ROUNDS = 3


class Died(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], tuple[RunResult, bytes]]:
    """(result, the final model as the operator has it)."""
    models: list[bytes] = []

    def finish(work: Recording, *rest: object) -> RunResult:
        models.append(work.model.packed())
        return finished(work, *rest)  # type: ignore[arg-type]

    finished = server.app.finish
    monkeypatch.setattr(server.app, "finish", finish)

    def simulated(config: Config) -> tuple[RunResult, bytes]:
        result = experiments.simulate.simulate(config)
        assert isinstance(result, RunResult)
        return result, models[-1]

    return simulated


def _dies(monkeypatch: pytest.MonkeyPatch, owner: type, name: str,
          when: Callable[..., bool], *, after: bool) -> None:
    """``owner.name`` dies once, before or after its work, when ``when(self, ...)``."""
    original = getattr(owner, name)
    left = [1]

    def work(self: object, *rest: object) -> object:
        due = bool(left[0]) and when(self, *rest)
        if due and not after:
            left[0] = 0
            raise Died
        result = original(self, *rest)
        if due:
            left[0] = 0
            raise Died
        return result

    monkeypatch.setattr(owner, name, work)


def _of_round_2(_: object, folded: Folded) -> bool:
    return folded.round == 2


def _of_test(_: object, folded: Folded) -> bool:
    return folded.kind == "test"


def _after_2(work: Recording) -> bool:
    return work.model.round == 2


def _always(*_: object) -> bool:
    return True


POINTS = {
    "before the first round": (Recording, "keep", _always, True),
    "replies in, sum not kept": (Checkpoints, "keep", _of_round_2, False),
    "sum kept, not opened": (Checkpoints, "keep", _of_round_2, True),
    "opened, not stepped": (EncryptedFedAvg, "_moved", lambda self, model, *_: model.round == 1,
                            False),
    "stepped, not kept": (Recording, "keep", _after_2, False),
    "kept, not logged": (Recording, "keep", _after_2, True),
    "test sum not kept": (Checkpoints, "keep", _of_test, False),
    "test sum kept": (Checkpoints, "keep", _of_test, True),
    "model half stored": (MlflowClient, "log_model_artifacts", _always, True),
    "model stored, not registered": (MlflowClient, "log_outputs", _always, False),
    "before the end is forgotten": (Checkpoints, "finished", _always, False),
}


_WHOLE: list[tuple[RunResult, bytes]] = []
"""An uninterrupted run, once for all points."""


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_died_ends_as_if_nothing_had_happened(
    point: str, configure, run, answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(privacy={"name": "none"}, federation={"folder": str(tmp_path / "f")})
    if not _WHOLE:
        _WHOLE.append(run(replace(config, federation=replace(config.federation, folder=""))))
        answers.clear()
    ((result, model),) = _WHOLE
    with monkeypatch.context() as patched:
        owner, name, when, after = POINTS[point]
        _dies(patched, owner, name, when, after=after)
        with pytest.raises(Died):
            run(config)
    again, resumed = run(config)
    assert resumed == model
    assert again.comparisons == result.comparisons and again.released == result.released
    assert set(answers.values()) == {ROUNDS, 1}
    assert not list((tmp_path / "f" / "server").iterdir())
    _one_recorded_run(config, result.mlflow_run_id)


def _one_recorded_run(config: Config, other: str) -> None:
    """Besides ``other``: every round once, ended well."""
    client = mlflow.MlflowClient(config.tracking.uri)
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (found,) = [r for r in client.search_runs([experiment.experiment_id])
                if r.info.run_id != other]
    steps = [p.step for p in client.get_metric_history(found.info.run_id, "cohort/answered")]
    assert sorted(steps) == list(range(1, ROUNDS + 1))
    for name in found.data.metrics:
        steps = [p.step for p in client.get_metric_history(found.info.run_id, name)]
        assert len(steps) == len(set(steps)), name
    assert found.info.status == "FINISHED" and "error" not in found.data.tags
    assert len(client.search_model_versions(f"run_id = '{found.info.run_id}'")) == 1
    models = client.search_logged_models(
        [experiment.experiment_id], f"source_run_id = '{found.info.run_id}'")
    assert [model.status for model in models] == ["READY"]
    assert [output.model_id for output in found.outputs.model_outputs] == [models[0].model_id]


def test_a_damaged_newest_checkpoint_costs_a_round_s_work_and_no_second_record(
    configure, run, answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(privacy={"name": "none"}, federation={"folder": str(tmp_path / "f")})
    with monkeypatch.context() as patched:
        _dies(patched, Recording, "on_round", lambda self, report: report.round == 2, after=True)
        with pytest.raises(Died):
            run(config)
    (place,) = (tmp_path / "f" / "server").iterdir()
    (place / "round-000002.checkpoint").write_bytes(b"damaged")
    run(config)
    assert set(answers.values()) == {ROUNDS, 1}
    _one_recorded_run(config, "")


def test_a_simulation_whose_servers_folder_is_gone_says_that_it_spends_again(
    configure, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(privacy={"name": "none"}, federation={"folder": str(tmp_path / "f")})
    with monkeypatch.context() as patched:
        _dies(patched, Recording, "keep", _after_2, after=True)
        with pytest.raises(Died):
            run(config)
    shutil.rmtree(tmp_path / "f" / "server")
    capsys.readouterr()
    result, _ = run(config)
    said = capsys.readouterr().err
    assert "privacy is spent a second time" in said
    assert said.index("a second time") < said.index("connecting partners")
    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name("veilsum")
    assert experiment is not None
    statuses = {r.info.run_id: r.info.status
                for r in client.search_runs([experiment.experiment_id])}
    assert statuses.pop(result.mlflow_run_id) == "FINISHED"
    assert set(statuses.values()) == {"KILLED"} or set(statuses.values()) == {"FAILED"}


@pytest.mark.parametrize("place", ["another store", "another sweep"])
def test_the_operator_may_wait_longer_and_record_elsewhere_before_it_goes_on(
    place: str, configure, run, answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(privacy={"name": "none"}, federation={"folder": str(tmp_path / "f")})
    with monkeypatch.context() as patched:
        _dies(patched, Recording, "keep", _after_2, after=True)
        with pytest.raises(Died):
            run(config)
    (tmp_path / "f").rename(tmp_path / "moved")
    other = replace(
        config, strategy=replace(config.strategy, timeout_s=99.0),
        federation=replace(config.federation, folder=str(tmp_path / "moved"), workers=1),
        tracking=replace(config.tracking, parent="b" * 32) if place == "another sweep" else
        replace(config.tracking, uri=f"sqlite:///{tmp_path}/other.db"))
    result, _ = run(other)
    tags = mlflow.MlflowClient(other.tracking.uri).get_run(result.mlflow_run_id).data.tags
    assert tags.get("mlflow.parentRunId") == other.tracking.parent
    assert set(answers.values()) == {ROUNDS, 1}
    _one_recorded_run(other, "")


@pytest.mark.parametrize("opening", ["revealed", "sealed"])
def test_noise_is_drawn_and_paid_for_once(
    opening: str, configure, run, answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(federation={"folder": str(tmp_path / "f")}, encryption={"opening": opening})
    for point in ("replies in, sum not kept", "opened, not stepped", "stepped, not kept"):
        with monkeypatch.context() as patched:
            owner, name, when, after = POINTS[point]
            _dies(patched, owner, name, when, after=after)
            with pytest.raises(Died):
                run(config)
        if opening == "sealed":
            _holds_no_model(tmp_path / "f", config)
    run(config)
    assert set(answers.values()) == {ROUNDS, 1} and len(answers) == 6
    for state in (tmp_path / "f" / "state").iterdir():
        lines = (state / "ledger.jsonl").read_text().splitlines()
        assert sorted({json.loads(line)["round"] for line in lines}) in (
            [1, 2, 3], [0, 1, 2, 3])
        assert len({json.loads(line)["run_id"] for line in lines}) == 1


def _holds_no_model(folder: Path, config: Config) -> None:
    """What the operator keeps of a sealed run shows no model to who has no key."""
    from client.export import open_model
    from keyholder.keys import SharedKey
    from strategies.global_model import SealedModel

    kept = Checkpoints(folder / "server", experiments.simulate.prepared(config, folder))
    saved = kept.load()
    assert saved is not None
    sealed = SealedModel().restored(saved.model).model
    files = b"".join(path.read_bytes() for path in kept.place.iterdir())
    if sealed:
        model = open_model(SharedKey.load(folder / "federation.key"), sealed).content.vector
        assert model.any()
        for width in ("<f4", "<f8"):
            assert model.astype(width).tobytes()[:16] not in files


def test_data_that_changed_are_refused(
    configure, run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.csv"
    own.write_bytes(table.read_bytes())
    config = configure(federation={"folder": str(tmp_path / "f")}, task={"path": str(own)})
    with monkeypatch.context() as patched:
        _dies(patched, Recording, "keep", _after_2, after=True)
        with pytest.raises(Died):
            run(config)
    lines = own.read_text().splitlines(keepends=True)
    own.write_text("".join(lines[:-1]))
    with pytest.raises(InvalidConfig, match="data changed"):
        run(config)
    own.write_bytes(table.read_bytes())
    run(config)


def test_a_server_that_goes_back_gets_the_bytes_that_it_had(
    configure, run, answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator that restores an older checkpoint and forgets the sums gets no second draw of
    noise; with another set of partners, nothing is opened."""
    config = configure(federation={"folder": str(tmp_path / "f")}, strategy={"quorum": 2})
    with monkeypatch.context() as patched:
        _dies(patched, Recording, "keep", _after_2, after=True)
        with pytest.raises(Died):
            run(config)
    (place,) = (tmp_path / "f" / "server").iterdir()
    (place / "round-000002.checkpoint").unlink()
    for path in place.glob("*.folded"):
        path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(EncryptedFedAvg, "_take", _without("west"))
        with pytest.raises(OpeningFailed, match="AnotherSumClaimed"):
            run(config)
    assert set(answers.values()) == {2}


def _without(partner: str) -> Callable[..., None]:
    take = EncryptedFedAvg._take

    def some(self: EncryptedFedAvg, number: int, sender: str, message: object) -> None:
        if sender != partner:
            take(self, number, sender, message)  # type: ignore[arg-type]

    return some


def test_two_simulations_do_not_share_a_folder(configure, run, tmp_path: Path) -> None:
    """Not even of different configurations: they would make its key and sites at once."""
    config = configure(federation={"folder": str(tmp_path / "f")})
    with (experiments.simulate._folder(config),
          pytest.raises(InvalidConfig, match=r"federation\.folder: another simulation")):
        run(replace(config, seed=1))
