"""Runs that MLflow knows as begun and not ended, and whose checkpoints are gone.

The same configuration then begins anew, and every partner spends privacy a second time. Nobody may
find that out from a ledger afterwards: a deployment refuses, a simulation says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conf.schema import InvalidConfig
from server.tracking_names import KEPT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ANEW = "begin-anew"


def lost_runs(client: MlflowClient, experiment_id: str, memory: str, *, deployed: bool, anew: bool
              ) -> list[Run]:
    """Runs of this experiment that had checkpoints, did not finish, and are of the configuration
    that ``memory`` names; in a simulation, where folders are many, also of its folder.

    ``memory``: :attr:`server.checkpoint.Checkpoints.memory` of checkpoints that hold nothing.
    Raises InvalidConfig for such a run of a deployment, unless a person said ``anew``.
    """
    if not memory:
        return []
    pattern = f"{memory.partition(' ')[0]} %" if deployed else memory
    carries = f"tags.`{KEPT_TAG}` LIKE '{pattern}'"
    found = [run for run in client.search_runs([experiment_id], carries)
             if run.info.status != "FINISHED"]
    if found and deployed and not anew:
        raise InvalidConfig(
            "state-path", f"this folder holds nothing of MLflow's run {_named(found[0])}, which is "
            "of this very configuration and did not end. Wait if it still runs elsewhere. If its "
            "folder was moved, name that one: the same command then goes on. If it is lost, "
            f"{_ANEW}=true in the run config begins anew, which spends every partner's privacy "
            "again")
    return found


def give_up(client: MlflowClient, run: Run, successor: str) -> str:
    """Mark a lost run as one that nobody goes on with; the warning to show."""
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
    client.set_tag(run.info.run_id, "error", f"its checkpoints are gone; {successor} began anew")
    client.delete_tag(run.info.run_id, KEPT_TAG)
    return (f"this run begins anew what MLflow's run {_named(run)} left unfinished, because nothing"
            " of that one is left in the folder: every partner's privacy is spent a second time")


def _named(run: Run) -> str:
    return f"{run.info.run_id[:8]} ({run.info.status})"
