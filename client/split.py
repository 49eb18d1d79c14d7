"""One division of a site's customers into training and held out, for all runs.

A run's training and its test release touch disjoint customers, so each has a ledger of its own
(parallel composition). That holds across runs only while nobody changes sides: with another seed
a customer could be charged in both ledgers and pass the site's limit in their sum.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from conf.schema import Config
from encryption.types import Refused
from strategies.durable import sync_folder


class SplitChanged(Refused):
    """The run divides customers otherwise than this site's earlier runs."""


def pin(path: Path, config: Config) -> None:
    """Remember the first run's division in ``path``; raises SplitChanged for any other."""
    check(path, config)
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x") as file:
            file.write(_division(config))
            file.flush()
            os.fsync(file.fileno())
        # Linked into place whole: of two first runs, one wins and the other is compared to it.
        os.link(temporary, path)
    except FileExistsError:
        check(path, config)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def check(path: Path, config: Config) -> None:
    """Raises SplitChanged for another division than that in ``path``, if there is one."""
    if path.exists() and _read(path) != json.loads(_division(config)):
        raise SplitChanged(
            f"earlier runs of this site held out other customers, as {path} says; use the same "
            "seed, task.holdout_fraction and task.holdout_partners")


def _read(path: Path) -> object:
    """None for what is no JSON: a person may have written it."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None


def _division(config: Config) -> str:
    held_out = {"seed": config.seed, "holdout_fraction": config.task.holdout_fraction}
    if config.task.holdout_partners:
        held_out["holdout_partners"] = sorted(config.task.holdout_partners)
    return json.dumps(held_out)
