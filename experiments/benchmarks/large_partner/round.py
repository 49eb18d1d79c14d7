"""One process that reads a partner's file and answers rounds: what it takes, as JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from client.local_round import training_sums
from experiments.benchmarks.large_partner.tables import PARTNER
from experiments.in_the_open import composed
from learning.registry import load_partner, prepare, shared_start
from strategies.agreement import Agreement

TABLE = ("task.test_snapshot=2024-12-17", "task.validation_snapshot=2024-12-03",
         "task.train_snapshots=[2024-07-30,2024-08-13,2024-08-27,2024-09-10,2024-09-24,2024-10-08,"
         "2024-10-22,2024-11-05,2024-11-19]")


def main(argv: list[str]) -> int:
    """File, number of rounds, overrides."""
    path, rounds, overrides = Path(argv[0]), int(argv[1]), argv[2:]
    config = prepare(composed("privacy=none", *overrides))
    config = replace(config, federation=replace(
        config.federation, partners=[PARTNER, "south"], customers={PARTNER: 1000, "south": 1000}))
    began = time.perf_counter()
    data = load_partner(config, path, PARTNER)
    read_s, read_kb = time.perf_counter() - began, _peak_kb()
    agreement, start = Agreement.of(config), shared_start(config)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        training_sums(start, data, config, agreement, PARTNER)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({
        "customers": len(data.train), "examples": data.train.examples,
        "gigabytes": data.train.examples * data.train.values * 4 / 1e9, "read_s": read_s,
        "round_s": seconds, "read_peak_kb": read_kb, "peak_kb": _peak_kb()}))
    return 0


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
