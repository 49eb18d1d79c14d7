"""A run as it begins in MLflow: its tags, its settings, what it trains on."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema import Config, InvalidConfig
from server.lost_runs import give_up, lost_runs
from server.mlflow_store import Session, not_taken, open_client, open_experiment, reopened
from server.tracking_names import RUN_TAG, DatasetDescription, default_run_name, run_note
from server.trust import trust_statement

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Start:
    """How a run begins. ``continues``: an interrupted one that its checkpoints know. ``memory``:
    the value of KEPT_TAG that a run with these checkpoints carries, "" where nothing is kept.
    ``anew``: a person said that a run which these checkpoints lost is to begin anew."""

    continues: bool = False
    memory: str = ""
    anew: bool = False


def open_run(config: Config, dataset: DatasetDescription | None, tags: dict[str, str],
             params: dict[str, str], start: Start) -> Session:
    """A new run, or the one that ``tags[RUN_TAG]`` names if it continues and is in this store; with
    a first file in it, so that a store which takes no model is found out before one is trained.
    Raises InvalidConfig, whatever the store does, and then leaves no run open."""
    uri = config.tracking.uri
    try:
        client = open_client(uri)
        experiment_id = open_experiment(client, uri, config.tracking.experiment)
        found = reopened(client, experiment_id, tags[RUN_TAG]) if start.continues else None
        if found is not None and config.tracking.parent is not None:
            # A sweep that was interrupted has another now.
            client.set_tag(found.run_id, "mlflow.parentRunId", config.tracking.parent)
        lost = [] if start.continues else lost_runs(
            client, experiment_id, start.memory, anew=start.anew,
            deployed=config.federation.name == "deployment")
        session = found or _create(client, experiment_id, config, tags)
        try:
            if found is None:
                _describe(session, config, dataset, params)
            client.log_dict(session.run_id, params, "settings.json")
            warnings = tuple(give_up(client, run, session.run_id) for run in lost)
        except Exception:
            client.set_terminated(session.run_id, "FAILED")
            raise
        return replace(session, lost=warnings)
    except InvalidConfig:
        raise
    except Exception as error:  # a store may fail in as many ways as there are stores
        raise not_taken(uri, error) from error


def _create(client: MlflowClient, experiment_id: str, config: Config, tags: dict[str, str]
            ) -> Session:
    tags = {"mlflow.source.name": "veilsum", "mlflow.source.type": "LOCAL", **_version_tags(),
            **trust_statement(config), **tags}
    if config.tracking.parent is not None:
        tags["mlflow.parentRunId"] = config.tracking.parent
    tags.setdefault("mlflow.note.content", run_note(tags.get("trust", "see SECURITY.md")))
    run = client.create_run(experiment_id, tags=tags, run_name=config.tracking.run_name)
    return Session(client, experiment_id, str(run.info.run_id))


def _describe(session: Session, config: Config, dataset: DatasetDescription | None,
              params: dict[str, str]) -> None:
    from mlflow.entities import DatasetInput, Param

    client, run_id = session.client, session.run_id
    if config.tracking.run_name is None:
        client.update_run(run_id, name=default_run_name(config, run_id))
    client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
    if dataset is not None:
        client.log_inputs(run_id, datasets=[DatasetInput(_dataset_entity(dataset), tags=[])])


def _dataset_entity(dataset: DatasetDescription) -> Any:
    """As MLflow's MetaDataset: where the data is from and which columns, not one value of it."""
    from mlflow.entities import Dataset

    is_address = dataset.source.startswith(("http://", "https://"))
    columns = [{"name": name, "type": "double", "required": True} for name in dataset.features]
    return Dataset(
        name=dataset.name,
        digest=dataset.digest[:36],
        source_type="http" if is_address else "package",
        source=json.dumps({"url" if is_address else "name": dataset.source}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"partners": ", ".join(dataset.partners)}),
    )


def _version_tags() -> dict[str, str]:
    """Version of this code, and the commit when it runs from a checkout."""
    tags: dict[str, str] = {}
    try:
        tags["veilsum.version"] = version("veilsum")
    except PackageNotFoundError:
        tags["veilsum.version"] = "not installed"
    git = shutil.which("git")
    if git is not None:
        asked = subprocess.run(  # noqa: S603 fixed arguments
            [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
            text=True, check=False, timeout=5)
        if asked.returncode == 0:
            tags["mlflow.source.git.commit"] = asked.stdout.strip()
    return tags
