"""Apps that do next to nothing, so that a run of them times the machinery around them.

As a script: ``python -m experiments.benchmarks.simulate.trivial_apps local|ray`` runs them once
and fails if a reply is missing. Imports Flower only, as the Ray leg's environment may hold no more.
"""

from __future__ import annotations

import logging
import os
import sys
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

CLIENTS = 4
ROUNDS = 10

client_app = ClientApp()
server_app = ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"n": int(message.content["n"]["n"]) + 1})
    return Message(RecordDict({"n": metrics}), reply_to=message)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node in every round. Raises RuntimeError for a missing or wrong reply."""
    while len(nodes := list(grid.get_node_ids())) < CLIENTS:
        time.sleep(0.01)
    for number in range(ROUNDS):
        content = RecordDict({"n": ConfigRecord({"n": number})})
        asked = [Message(content, node, "train") for node in nodes]
        replies = list(grid.send_and_receive(asked, timeout=60))
        good = [reply for reply in replies
                if reply.has_content() and reply.content["n"]["n"] == number + 1]
        if len(good) != CLIENTS:
            raise RuntimeError(f"round {number}: {len(good)} of {CLIENTS} good replies")


def run_local() -> None:
    from experiments.local_grid import LocalGrid, run_server_app

    nodes: dict[str, dict[str, str]] = {f"client{number}": {} for number in range(CLIENTS)}
    with LocalGrid(client_app, nodes, {}, workers=2) as grid:
        run_server_app(server_app, grid, {})


def run_ray() -> None:
    from flwr.simulation import run_simulation

    run_simulation(server_app, client_app, num_supernodes=CLIENTS,
                   backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    {"local": run_local, "ray": run_ray}[sys.argv[1]]()
