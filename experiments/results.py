"""``veilsum results``: the comparison that the README shows, made by one command."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from conf.schema import Config, InvalidConfig
from experiments.series import (
    Place,
    averaged_row,
    interval_text,
    markdown_head,
    smallest_partner,
    whole_numbers,
    with_run,
)
from learning.results import Comparison, RunResult

Draws = list[list[RunResult]]
"""For each seed, its runs: alike but for their noise."""


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
    parser.add_argument("--draws", type=int, default=1, metavar="D",
                        help="runs of each seed that has noise, which differ in it alone (default "
                        "1); from 2 on a column says how far noise by itself moves a run")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the results markers of FILE (named after the "
                        "task, unless it is retail_repeat)")
    options, overrides = parser.parse_known_args(argv)
    if options.draws < 1:
        parser.error("--draws: at least 1")
    from experiments.launch import compose_and_run

    places: list[Place] = []

    def check(config: Config) -> None:
        if options.write is not None:
            places.append(Place.of_task(options.write, "results", config.task.name))
            places[0].check()

    if code := compose_and_run("veilsum results", overrides, check):
        return code
    collected: list[tuple[str, Draws]] = []
    for setting in SETTINGS:
        results: list[list[RunResult]] = []
        code = compose_and_run(
            "veilsum results", [*setting.overrides, *overrides],
            lambda config, results=results: results.extend(
                _runs(config, options.seeds, options.draws)))
        if code:
            return code
        collected.append((setting.label, results))
    text = markdown(collected)
    print(text)
    for place in places:
        place.write(text)
    return 0


def _runs(config: Config, seeds: tuple[int, ...], draws: int) -> Draws:
    from experiments.simulate import simulate

    if not seeds:
        raise InvalidConfig("--seeds", "needs at least one seed")
    privacy = config.privacy
    name = privacy.name + ("" if privacy.name == "none" else f"-eps{privacy.epsilon:g}")
    named = replace(config, tracking=replace(config.tracking, experiment="veilsum-results"))
    names = [name] if draws == 1 or privacy.name == "none" else [
        f"{name}-draw{number}" for number in range(1, draws + 1)]
    return [[simulate(with_run(named, one, seed)) for one in names] for seed in seeds]


def markdown(collected: Sequence[tuple[str, Draws]]) -> str:
    """Rows: settings; columns: test metric of all, of held-out customers, of the smallest
    partner; and the paired gains. The baselines stand above, once: they do not depend on ε."""
    base = _runs_of(collected[0][1])
    first, draws = base[0], max(len(drawn) for _, seeds in collected for drawn in seeds)
    smallest = smallest_partner(first.comparisons)
    groups = ("all", "held out", smallest)
    better = "" if first.higher_is_better else ", lower is better"
    mean = f"mean of {len(collected[0][1])} seeds" + (
        f", with noise of {draws} draws each" if draws > 1 else "")
    noise = ["one run's noise (all)"] if draws > 1 else []
    lines = markdown_head(
        f"test {first.metric_label}{better}, {mean}", "all", "held-out customers",
        f"smallest partner ({smallest})", "gain over naive (all)", "gain over alone (all)",
        f"gain over alone ({smallest})", *noise, "ε if the key leaks").split("\n")
    for label, name in (
            (f"naive: {first.naive_rule}", "naive"),
            ("each partner alone, no privacy", "local"),
            ("all data pooled, no privacy", "pooled")):
        cells = [interval_text(getattr(_row(base, group), name)) for group in groups]
        lines.append(_line(label, *cells, *[""] * (4 + len(noise))))
    for label, seeds in collected:
        results = _runs_of(seeds)
        rows = {group: _row(results, group) for group in groups}
        leak = results[0].epsilon_if_key_leaks
        gains = (rows["all"].gain_over_naive, rows["all"].gain_over_local,
                 rows[smallest].gain_over_local)
        lines.append(_line(
            f"**federated**, {label}", *(interval_text(rows[group].federated) for group in groups),
            *(interval_text(gain, signed=True) for gain in gains),
            *[_noise_text(seeds) for _ in noise],
            f"{leak:.1f}" if math.isfinite(leak) else "no protection"))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _runs_of(seeds: Draws) -> list[RunResult]:
    return [result for drawn in seeds for result in drawn]


def _noise_text(seeds: Draws) -> str:
    """Standard deviation of a run's metric by its noise: of runs around the mean of their seed."""
    values = [[_row([result], "all").federated.value for result in drawn] for drawn in seeds]
    freedom = sum(len(drawn) - 1 for drawn in values)
    if not freedom:
        return ""
    squares = sum((value - fmean(drawn)) ** 2 for drawn in values for value in drawn)
    return f"± {math.sqrt(squares / freedom):.4f}"


def _row(results: Sequence[RunResult], partner: str) -> Comparison:
    return averaged_row([row for result in results for row in result.comparisons
                         if row.partner == partner])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
