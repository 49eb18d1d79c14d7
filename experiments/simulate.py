"""``veilsum simulate``: a federation in one process, through the very apps of a deployment."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from conf.compose import to_json
from conf.schema import Config

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def simulate(config: Config) -> object:
    """Run one federation as configured and return its RunResult.

    Prepares one file and one copy of the key per partner in a temporary folder, which is
    deleted at the end: a simulation's key protects nobody.
    Raises InvalidConfig, TooFewUpdates, OpeningFailed.
    """
    # Imports that take seconds come after the configuration has proved sound.
    from client.app import app as client_app
    from encryption.parameters import choose_parameters
    from experiments.local_grid import LocalGrid, run_server_app
    from keyholder.keys import SharedKey
    from server.app import app as server_app
    from server.app import read_result

    with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
        work = Path(folder)
        config = prepared(config, work)
        partners = config.federation.partners
        parameters = choose_parameters(config.encryption.name, len(partners),
                                       config.encryption.bits)
        SharedKey.generate(parameters).save(work / "federation.key")
        nodes = {name: _node(work, name, config.federation.sites[name]) for name in partners}
        run_config = {"config": to_json(config)}
        with LocalGrid(client_app, nodes, run_config, workers=config.federation.workers) as grid:
            return read_result(run_server_app(server_app, grid, run_config))


def prepared(config: Config, folder: Path) -> Config:
    """Fill in what a deployment states by hand: partners, each with a file below ``folder``, and
    public customer estimates. Raises InvalidConfig."""
    from learning.registry import load_partner, make_task, prepare

    config = prepare(config)
    sites = make_task(config).split_by_partner(folder / "events")
    partners = sorted(sites)
    federation = replace(
        config.federation,
        partners=partners,
        sites={name: str(sites[name]) for name in partners},
        customers={name: _estimate(len(load_partner(config, sites[name]).train))
                   for name in partners},
    )
    return replace(config, federation=federation).validate()


def _estimate(customers: int) -> int:
    """Tens are what a partner would state openly; a handful it would state as it is."""
    return round(customers, -1) if customers >= 10 else max(1, customers)


def _node(work: Path, name: str, data: str) -> dict[str, str]:
    state = work / "state" / name
    state.mkdir(parents=True)
    return {"partner": name, "data-path": data, "key-path": str(work / "federation.key"),
            "state-path": str(state), "epsilon-limit": "unlimited"}


def main(argv: list[str]) -> int:
    from experiments.launch import compose_and_run
    from experiments.sweep import Sweep

    sweep = Sweep(argv)
    return compose_and_run("veilsum simulate", argv, sweep.run, around=sweep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
