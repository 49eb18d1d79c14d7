"""Opening an MLflow store and putting a model into it.

Addresses are checked early, MLflow is kept silent, artifacts lie beside the database.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from conf.schema import InvalidConfig, TrackingConfig
from server.mlflow_database import CURE, check_sqlite, make_ready, sqlite_file
from server.tracking_names import RUN_TAG, UNFINISHED_TAG, slug

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

_PROBE_TIMEOUT_S = 5.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ENVIRONMENT = "MLFLOW_TRACKING_URI"
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Session:
    """One open run in one store. ``steps``: rounds that it had when it was opened again; ``lost``:
    runs that this one begins anew, in words."""

    client: MlflowClient
    experiment_id: str
    run_id: str
    steps: frozenset[int] = frozenset()
    lost: tuple[str, ...] = ()


def quiet_mlflow() -> None:
    """Keep MLflow from writing on the terminal and from sending usage statistics.

    What the user set in the environment wins.
    """
    for name, value in {
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the tracker itself tries again
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints a traceback of every error that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Both come from MLflow's own classes while they load: a loader that SQLAlchemy 2.1
    # deprecates, and a type hint of its chat interface.
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")


def store_uri(uri: str) -> str:
    """Where a run whose ``tracking.uri`` is ``uri`` records: where that is left at its default,
    MLflow's own MLFLOW_TRACKING_URI is honoured."""
    asked = os.environ.get(_ENVIRONMENT, "")
    return asked if asked and uri == TrackingConfig().uri else uri


def key_of(uri: str) -> str:
    """What a person must change: the key, or the environment's variable."""
    return f"{_ENVIRONMENT} of the environment" if (
        uri == os.environ.get(_ENVIRONMENT)) else "tracking.uri"


def check_uri(uri: str) -> None:
    """Raise InvalidConfig for an address that cannot work; cheap, before MLflow is loaded."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        _check_server(uri)
    elif parts.scheme == "sqlite" or parts.scheme.startswith("sqlite+"):
        check_sqlite(uri, key_of(uri))
    elif parts.scheme.partition("+")[0] not in _DATABASES:
        shown = parts.scheme or "a folder"
        raise InvalidConfig(key_of(uri), f"{shown} is no store that MLflow keeps up; {CURE}")


def _check_server(uri: str) -> None:
    """A server that asks for a login is there; one that fails at this will fail at more."""
    try:
        # urllib would take a login for a part of the host's name.
        address = _without_login(uri).rstrip("/") + "/health"
        request = urllib.request.Request(address)  # noqa: S310 http(s) only
        urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT_S).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise InvalidConfig(
                key_of(uri), f"the MLflow server at {_without_login(uri)} answers with its own "
                f"error {error.code}; see its log, or use tracking.uri=sqlite:///mlflow.db"
            ) from None
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            key_of(uri),
            f"no MLflow server answers at {_without_login(uri)} ({type(error).__name__}); "
            "start it, or use tracking.uri=sqlite:///mlflow.db",
        ) from None


def _without_login(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def not_taken(uri: str, error: Exception) -> InvalidConfig:
    """The refusal for what MLflow raised while a run opened, in one line and without logins."""
    said = next(iter(str(error).strip().splitlines()), "")
    if len(said) > _LONGEST_REASON:  # the cause of a chain of errors stands last
        said = f"{said[: _LONGEST_REASON // 3]} ... {said[-_LONGEST_REASON * 2 // 3 :]}"
    return InvalidConfig(
        key_of(uri), f"MLflow takes no new run at {_without_login(uri)} "
        f"({type(error).__name__}: {_without_login(said)}); nothing was spent. Check the disk, or "
        f"the server, that it stands for; or {CURE}")


def open_client(uri: str) -> MlflowClient:
    """A client on a checked address. Raises InvalidConfig when the store refuses."""
    make_ready(uri, key_of(uri))
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, ImportError, OSError) as error:
        cure = CURE
        if "out-of-date" in str(error):
            cure = "another version of MLflow made it: run `mlflow db upgrade`, or name a new file"
        raise InvalidConfig(
            key_of(uri), f"MLflow cannot open it ({type(error).__name__}); {cure}"
        ) from None


_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Opens MLflow's page on training runs; without it, it guesses at language models."""


def open_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made on first use; an sqlite file gets ``mlartifacts/`` beside it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        file = sqlite_file(uri)
        root = file and (file.resolve().parent / "mlartifacts" / slug(name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=root, tags=_KIND))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise InvalidConfig("tracking.experiment", f"{name!r} was deleted in MLflow; restore it "
                            "there, or choose another name")
    return str(found.experiment_id)


def reopened(client: MlflowClient, experiment_id: str, run: str) -> Session | None:
    """The newest MLflow run of the Veilsum run ``run``, set running again; None where it is not in
    this store."""
    found = client.search_runs(
        [experiment_id], f"tags.`{RUN_TAG}` = '{run}'", order_by=["attributes.start_time DESC"],
        max_results=1)
    if not found:
        return None
    run_id = str(found[0].info.run_id)
    client.update_run(run_id, status="RUNNING")
    for tag in {"error", UNFINISHED_TAG} & set(found[0].data.tags):
        client.delete_tag(run_id, tag)
    return Session(client, experiment_id, run_id, logged_steps(client, run_id, _EVERY_ROUNDS))


_EVERY_ROUNDS = "cohort/answered"
"""A metric that every round has."""


def logged_steps(client: MlflowClient, run_id: str, name: str) -> frozenset[int]:
    """The steps at which a run has the metric ``name``."""
    return frozenset(point.step for point in client.get_metric_history(run_id, name))


def log_bytes(session: Session, content: bytes, name: str) -> None:
    """Store ``content`` as the artifact ``name`` ("folder/file")."""
    folder, _, file = name.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / file
        path.write_bytes(content)
        session.client.log_artifact(session.run_id, str(path), folder or None)


def log_model(session: Session, model: nn.Module, example: np.ndarray, name: str,
              step: int) -> None:
    """Store and register a model that ``mlflow.pytorch.load_model`` loads, once for a run: a
    continued run keeps what it has, and adds what an interruption left out.

    Guarantees: the stored graph takes any size in every axis but the last, and holds no value of
    ``example``, whose shape and dtype alone are used.
    """
    from mlflow.entities import LoggedModelOutput

    client, run_id = session.client, session.run_id
    model_id = _stored_model(session) or _store_model(session, model, example)
    outputs = client.get_run(run_id).outputs
    if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    if name and not client.search_model_versions(f"run_id = '{run_id}'"):
        _register(session, model_id, name)


def _stored_model(session: Session) -> str | None:
    """Id of the run's whole model; one that an interruption cut short is removed."""
    whole = None
    for found in session.client.search_logged_models(
            [session.experiment_id], f"source_run_id = '{session.run_id}'"):
        if found.status == "READY":
            whole = str(found.model_id)
        else:
            session.client.delete_logged_model(found.model_id)
    return whole


def _store_model(session: Session, model: nn.Module, example: np.ndarray) -> str:
    """Id of the stored model."""
    import mlflow.pytorch
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Twos: an axis of length 1 would be exported as a constant.
    blank = np.zeros((*(2 for _ in example.shape[:-1]), example.shape[-1]), example.dtype)
    free = (-1,) * (example.ndim - 1)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        out = model(torch.from_numpy(blank)).numpy()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(blank.dtype, (*free, blank.shape[-1]))]),
        outputs=Schema([TensorSpec(out.dtype, (-1,) * out.ndim)]))
    logged = session.client.create_logged_model(
        session.experiment_id, name="model", source_run_id=session.run_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow.pytorch.save_model(
            model, str(path), signature=signature, input_example=blank,
            mlflow_model=Model(run_id=session.run_id, model_id=logged.model_id),
            pip_requirements=[f"{package}=={version(package).partition('+')[0]}"
                              for package in ("mlflow", "torch", "numpy")])
        session.client.log_model_artifacts(logged.model_id, str(path))
    model.train(was_training)
    session.client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _register(session: Session, model_id: str, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        session.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    logged = session.client.get_logged_model(model_id)
    session.client.create_model_version(
        name, source=logged.artifact_location, run_id=session.run_id, model_id=model_id)
