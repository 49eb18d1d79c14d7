"""``veilsum simulate``: a federation in one process, through the very apps of a deployment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.compose import to_json
from conf.schema import Config, InvalidConfig

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.app.user_config import UserConfig
    from flwr.serverapp import ServerApp

    from keyholder.keys import SharedKey

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def simulate(config: Config) -> object:
    """Run one federation as configured and return its RunResult.

    Prepares one file and one copy of the key per partner in a temporary folder, which is
    deleted at the end: a simulation's key protects nobody. ``federation.folder`` keeps them.
    A simulation is every party at once, so where the model is sealed it opens the final one with
    its key, for the comparison alone: nothing of it is recorded.
    Raises InvalidConfig, TooFewUpdates, OpeningFailed.
    """
    _check_simulated(config)
    # Imports that take seconds come after the configuration has proved sound.
    from client.export import open_model
    from client.session import read_heads
    from experiments.ray_grid import check_ray
    from server.app import Operator, make_app, read_result
    from strategies.widths import check_before_data

    check_before_data(config)
    if config.federation.name == "ray":
        check_ray()
    with _folder(config) as work:
        config = prepared(config, work)
        key = _key(config, work / "federation.key")
        nodes = {name: _node(work, name, config.federation.sites[name])
                 for name in config.federation.partners}
        machine = Operator(
            lambda sealed: open_model(key, sealed).content.vector,
            work / "server" if config.federation.folder else None, processes=1,
            heads=read_heads(config, nodes))
        return read_result(_run_apps(config, nodes, make_app(machine)))


def _check_simulated(config: Config) -> None:
    """Raises InvalidConfig for a deployment; says so where the key will be lost."""
    if config.federation.name == "deployment":
        raise InvalidConfig("federation", "a deployment is started by `flwr run` (README.md, \"On "
                            "a real Flower federation\"); simulate with federation=local or "
                            "federation=ray")
    if config.encryption.opening == "sealed" and not config.federation.folder:
        print("note: this run's key is deleted at its end, and then nobody can open the sealed "
              "model that it records; federation.folder=FOLDER keeps the key", file=sys.stderr)


def _run_apps(config: Config, nodes: dict[str, dict[str, str | int]], server_app: ServerApp
              ) -> Context:
    """The server's context after the run, on the engine that ``federation`` names."""
    from client.app import app as client_app
    from experiments.local_grid import LocalGrid, run_server_app
    from experiments.ray_grid import run_on_ray

    run_config: UserConfig = {"config": to_json(config)}
    if config.federation.name == "ray":
        return run_on_ray(server_app, client_app, nodes, run_config, config.federation)
    with LocalGrid(client_app, nodes, run_config, workers=config.federation.workers) as grid:
        return run_server_app(server_app, grid, run_config)


@contextlib.contextmanager
def _folder(config: Config) -> Iterator[Path]:
    if not config.federation.folder:
        from learning.registry import forget_partners

        with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
            try:
                yield Path(folder)
            finally:
                forget_partners()
        return
    work = Path(config.federation.folder).expanduser().resolve()
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("ab")
    except OSError as error:
        raise InvalidConfig("federation.folder", f"{work}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidConfig("federation.folder", f"another simulation is at work in {work}; "
                                "wait for it, or name another folder") from None
        yield work


def _key(config: Config, path: Path) -> SharedKey:
    """The simulation's key, made where there is none yet. Raises InvalidConfig."""
    from keyholder.keys import KeyFileError, SharedKey
    from strategies.agreement import Agreement

    parameters = Agreement.of(config).parameters
    if not path.exists():
        if any(path.parent.glob("state/*/keys/*")):
            raise InvalidConfig("federation.folder", f"the key of its earlier runs is gone: put "
                                f"{path} back, or name an empty folder, where a new run begins")
        SharedKey.generate(parameters).save(path)
    try:
        key = SharedKey.load(path)
        key.check_fits(parameters)
    except KeyFileError as error:
        raise InvalidConfig("federation.folder", f"{error}; or name an empty folder") from None
    return key


def prepared(config: Config, folder: Path) -> Config:
    """Fill in what a deployment states by hand: partners, each with a file below ``folder``, and
    public customer estimates. Raises InvalidConfig."""
    from experiments.partition import split_further
    from learning.registry import load_partner, make_task, prepare

    for key in ("partners", "customers"):
        if getattr(config.federation, key):
            raise InvalidConfig(f"federation.{key}", "is for a deployment; a simulation's partners "
                                "are those of its table, so leave it out")
    config = prepare(config)
    sites = make_task(config).split_by_partner(folder / "events")
    if config.federation.split_into:
        sites = split_further(sites, config.federation.split_into, folder / "events")
    partners = sorted(sites)
    _check_least(config, partners)
    federation = replace(
        config.federation,
        partners=partners,
        sites={name: str(sites[name]) for name in partners},
        customers={name: _estimate(len(load_partner(config, sites[name], name).train))
                   for name in partners},
    )
    config = replace(config, federation=federation).validate()
    _check_newcomer(config)
    return config


def _check_least(config: Config, partners: list[str]) -> None:
    """Raises InvalidConfig where these partners could not train if they had one customer each:
    arrays are built for nothing then."""
    from strategies.widths import agreed

    federation = replace(config.federation, partners=partners, customers=dict.fromkeys(partners, 1))
    agreed(replace(config, federation=federation).validate())


def _check_newcomer(config: Config) -> None:
    """Raises InvalidConfig where it would have to bring more customers than there are."""
    from learning.registry import load_partner

    name, wanted = config.task.newcomer_partner, config.task.newcomer_customers
    if name is None:
        return
    task = replace(config.task, newcomer_partner=None, newcomer_customers=0)
    there = len(load_partner(replace(config, task=task), config.federation.sites[name], name).train)
    if there < wanted:
        raise InvalidConfig("task.newcomer_customers", f"{name} has {there:,} training customers, "
                            f"fewer than {wanted:,}; give a smaller number (`veilsum newcomer`: "
                            "--customers)")


def _estimate(customers: int) -> int:
    """Tens are what a partner would state openly; a handful it would state as it is."""
    return round(customers, -1) if customers >= 10 else max(1, customers)


def _node(work: Path, name: str, data: str) -> dict[str, str | int]:
    """One process a client: the cores are busy with other clients."""
    state = work / "state" / name
    state.mkdir(parents=True, exist_ok=True)
    return {"partner": name, "data-path": data, "key-path": str(work / "federation.key"),
            "state-path": str(state), "epsilon-limit": "unlimited", "processes": 1}


def main(argv: list[str]) -> int:
    from experiments.launch import compose_and_run
    from experiments.sweep import Sweep

    sweep = Sweep(argv, simulate)
    return compose_and_run("veilsum simulate", argv, sweep.run, around=sweep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
