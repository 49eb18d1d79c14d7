"""``veilsum results``: the comparison that the README shows, made by one command."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from conf.schema import Config, InvalidConfig
from experiments.series import (
    Place,
    averaged_row,
    interval_text,
    smallest_partner,
    whole_numbers,
    with_run,
)
from learning.results import Comparison, RunResult


@dataclass(frozen=True)
class Setting:
    """One row of the table: how customers are protected."""

    label: str
    overrides: tuple[str, ...]


SETTINGS = (
    Setting("no differential privacy", ("privacy=none",)),
    *(Setting(f"noise shares, ε={epsilon}", (f"privacy.epsilon={epsilon}",))
      for epsilon in (1, 3, 8)),
    *(Setting(f"local DP, ε={epsilon}", ("privacy=local_dp", f"privacy.epsilon={epsilon}"))
      for epsilon in (1, 3, 8)),
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum results",
        description="Run every kind of protection over the same seeds and print one Markdown "
        "table. All runs are recorded in MLflow.",
        epilog="Other arguments are overrides as in `veilsum simulate` (for example "
        "task=utility_load).",
    )
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S",
                        help="seeds to average over (default 0,1,2)")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the results markers of FILE (named after the "
                        "task, unless it is retail_repeat)")
    options, overrides = parser.parse_known_args(argv)
    from experiments.launch import compose_and_run

    places: list[Place] = []

    def check(config: Config) -> None:
        if options.write is not None:
            places.append(Place.of_task(options.write, "results", config.task.name))
            places[0].check()

    if code := compose_and_run("veilsum results", overrides, check):
        return code
    collected: list[tuple[str, list[RunResult]]] = []
    for setting in SETTINGS:
        results: list[RunResult] = []
        code = compose_and_run(
            "veilsum results", [*setting.overrides, *overrides],
            lambda config, results=results: results.extend(_runs(config, options.seeds)))
        if code:
            return code
        collected.append((setting.label, results))
    text = markdown(collected)
    print(text)
    for place in places:
        place.write(text)
    return 0


def _runs(config: Config, seeds: tuple[int, ...]) -> list[RunResult]:
    from experiments.simulate import simulate

    if not seeds:
        raise InvalidConfig("--seeds", "needs at least one seed")
    privacy = config.privacy
    name = privacy.name + ("" if privacy.name == "none" else f"-eps{privacy.epsilon:g}")
    named = replace(config, tracking=replace(config.tracking, experiment="veilsum-results"))
    return [simulate(with_run(named, name, seed)) for seed in seeds]


def markdown(collected: list[tuple[str, list[RunResult]]]) -> str:
    """Rows: settings; columns: test metric of all, of held-out customers, of the smallest
    partner; and the paired gains. The baselines stand above, once: they do not depend on ε."""
    first = collected[0][1][0]
    smallest = smallest_partner(first.comparisons)
    groups = ("all", "held out", smallest)
    better = "" if first.higher_is_better else ", lower is better"
    lines = [f"| test {first.metric_label}{better}, mean of {len(collected[0][1])} seeds | all | "
             f"held-out customers | smallest partner ({smallest}) | gain over naive (all) | "
             f"gain over alone (all) | gain over alone ({smallest}) | ε if the key leaks |",
             "|---|---|---|---|---|---|---|---|"]
    base = {group: _row(collected[0][1], group) for group in groups}
    for label, name in (
            (f"naive: {first.naive_rule}", "naive"),
            ("each partner alone, no privacy", "local"),
            ("all data pooled, no privacy", "pooled")):
        cells = " | ".join(interval_text(getattr(base[group], name)) for group in groups)
        lines.append(f"| {label} | {cells} | | | | |")
    for label, results in collected:
        rows = {group: _row(results, group) for group in groups}
        cells = " | ".join(interval_text(rows[group].federated) for group in groups)
        leak = results[0].epsilon_if_key_leaks
        lines.append(f"| **federated**, {label} | {cells} | "
                     f"{interval_text(rows['all'].gain_over_naive, signed=True)} | "
                     f"{interval_text(rows['all'].gain_over_local, signed=True)} | "
                     f"{interval_text(rows[smallest].gain_over_local, signed=True)} | "
                     f"{f'{leak:.1f}' if math.isfinite(leak) else 'no protection'} |")
    return "\n".join(lines)


def _row(results: list[RunResult], partner: str) -> Comparison:
    return averaged_row([row for result in results for row in result.comparisons
                         if row.partner == partner])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
