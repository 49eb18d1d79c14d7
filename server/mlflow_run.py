"""A run as it begins in MLflow: its tags, its settings, what it trains on."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from conf.schema import Config
from server.mlflow_store import Session, open_client, open_experiment, reopened
from server.tracking_names import RUN_TAG, DatasetDescription, default_run_name, run_note
from server.trust import trust_statement


def open_run(config: Config, dataset: DatasetDescription | None, tags: dict[str, str],
              params: dict[str, str], continues: bool) -> Session:
    """A new run, or the one that ``tags[RUN_TAG]`` names if it ``continues`` and is in this store.
    Raises InvalidConfig."""
    client = open_client(config.tracking.uri)
    from mlflow.entities import DatasetInput, Param

    experiment_id = open_experiment(client, config.tracking.uri, config.tracking.experiment)
    if continues and (found := reopened(client, experiment_id, tags[RUN_TAG])):
        if config.tracking.parent is not None:  # a sweep that was interrupted has another now
            client.set_tag(found.run_id, "mlflow.parentRunId", config.tracking.parent)
        return found
    tags = {"mlflow.source.name": "veilsum", "mlflow.source.type": "LOCAL", **_version_tags(),
            **trust_statement(config), **tags}
    if config.tracking.parent is not None:
        tags["mlflow.parentRunId"] = config.tracking.parent
    tags.setdefault("mlflow.note.content", run_note(tags.get("trust", "see SECURITY.md")))
    run = client.create_run(experiment_id, tags=tags, run_name=config.tracking.run_name)
    run_id = str(run.info.run_id)
    if config.tracking.run_name is None:
        client.update_run(run_id, name=default_run_name(config, run_id))
    client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
    if dataset is not None:
        client.log_inputs(run_id, datasets=[DatasetInput(_dataset_entity(dataset), tags=[])])
    return Session(client, experiment_id, run_id)


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
