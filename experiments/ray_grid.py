"""Flower's own simulation engine: the clients as Ray actors, in processes of their own.

The ServerApp and the ClientApp are those of a deployment. Ray pays off where a round is much work
for many clients, or where there are several machines; for a short run its start costs more than
the run (``experiments/benchmarks/simulate``).
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from conf.schema import FederationConfig, InvalidConfig
from experiments.local_grid import run_server_app

_NOT_INSTALLED = ("Ray is not installed; `pip install -c constraints.txt -e '.[ray]'` adds it, or "
                  "use federation=local, which needs nothing")


def check_ray() -> None:
    """Raises InvalidConfig, with the cure, where Ray is missing."""
    if importlib.util.find_spec("ray") is None:
        raise InvalidConfig("federation", _NOT_INSTALLED)


@dataclass(frozen=True)
class SitedApp:
    """A ClientApp with the configuration of its site, which Flower's engine has no option for:
    it tells a client only its number. Picklable, for Ray."""

    app: ClientApp
    nodes: tuple[Mapping[str, str | int], ...]
    run_config: UserConfig

    def __call__(self, message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        sited = Context(run_id=context.run_id, node_id=context.node_id,
                        node_config=dict(self.nodes[number]), state=context.state,
                        run_config=dict(self.run_config))
        return self.app(message, sited)


def run_on_ray(server_app: ServerApp, client_app: ClientApp,
               nodes: Mapping[str, Mapping[str, str | int]], run_config: UserConfig,
               federation: FederationConfig) -> Context:
    """Run both apps to the end and return the ServerApp's context.

    ``nodes``: name -> node config. Without ``federation.ray_address`` this machine alone works,
    ``federation.workers`` clients at a time; with it all processors of that cluster.
    Raises whatever the ServerApp raises, and InvalidConfig where Ray is missing or not there.
    """
    check_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns
    from flwr.simulation import run_simulation

    found: list[Context] = []
    wrapper = ServerApp()

    @wrapper.main()
    def main(grid: Grid, context: Context) -> None:
        # The engine starts the app with an empty configuration.
        found.append(run_server_app(server_app, grid, run_config))

    for name in ("flwr", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sited: Any = SitedApp(client_app, tuple(nodes.values()), run_config)
    run_simulation(
        wrapper, sited, num_supernodes=len(nodes),
        backend_config={"init_args": _init_args(federation),
                        "client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
    return found[0]


def _init_args(federation: FederationConfig) -> dict[str, str | int | bool]:
    """What Flower's backend hands to ``ray.init``, which refuses processors for a cluster."""
    quiet: dict[str, str | int | bool] = {"log_to_driver": False, "logging_level": "error"}
    if federation.ray_address:
        return {"address": federation.ray_address, **quiet}
    return {"num_cpus": federation.workers, **quiet}
