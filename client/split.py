"""One division of a site's customers into training and held out, for all runs.

A run's training and its test release touch disjoint customers, so each has a ledger of its own
(parallel composition). That holds across runs only while nobody changes sides: with another seed
a customer could be charged in both ledgers and pass the site's limit in their sum.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from conf.schema import Config
from encryption.types import Refused


class SplitChanged(Refused):
    """The run divides customers otherwise than this site's earlier runs."""


def pin(path: Path, config: Config) -> None:
    """Remember the first run's division in ``path``; raises SplitChanged for any other."""
    held_out = {"seed": config.seed, "holdout_fraction": config.task.holdout_fraction}
    if config.task.holdout_partners:
        held_out["holdout_partners"] = sorted(config.task.holdout_partners)
    split = json.dumps(held_out)
    try:
        # Linked into place whole: of two first runs, one wins and the other is compared to it.
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(split)
        os.link(temporary, path)
    except FileExistsError:
        if path.read_text() != split:
            raise SplitChanged(
                "earlier runs of this site held out other customers; use the same seed, "
                "task.holdout_fraction and task.holdout_partners") from None
    finally:
        temporary.unlink(missing_ok=True)
