"""``veilsum newcomer``: what joining gives a partner that has only a few customers yet."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from conf.schema import Config, InvalidConfig
from experiments.series import Place, averaged, interval_text, whole_numbers, with_run


@dataclass(frozen=True)
class Example:
    """Whom to cut down, and to how many customers. partner: None for one of middle size."""

    partner: str | None
    customers: tuple[int, ...]


EXAMPLES = {"utility_load": Example("CA", (3,))}
"""By task, for the data that comes with it."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum newcomer",
        description="Cut one partner down to a few training customers and compare the model it "
        "could train alone with the one it gets by joining the others, on all its test "
        "customers. Every point is a full federation, recorded in MLflow; the last run holds "
        "the figure.",
        epilog="Other arguments are overrides as in `veilsum simulate`, for example "
        "privacy.epsilon=1 or task.newcomer_partner=area_2.",
    )
    parser.add_argument("--customers", type=whole_numbers, metavar="N,N",
                        help="training customers of the newcomer (default 10,25,50, or what the "
                        "task's data suggests)")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S",
                        help="seeds of the split to average over (default 0,1,2)")
    parser.add_argument("--write", type=Path, metavar="FILE",
                        help="put the table between the newcomer markers of FILE (named "
                        "after the task, unless it is retail_repeat)")
    options, overrides = parser.parse_known_args(argv)
    from experiments.launch import compose_and_run

    return compose_and_run("veilsum newcomer", overrides,
                           lambda config: _study(config, options.customers, options.seeds,
                                                 options.write))


def _study(config: Config, sizes: tuple[int, ...] | None, seeds: tuple[int, ...],
           write: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from experiments.simulate import simulate
    from learning.registry import make_task, prepare
    from learning.results import metric_label
    from server.figures import NewcomerPoint

    place = None if write is None else Place.of_task(write, "newcomer", config.task.name)
    if place is not None:
        place.check()
    example = EXAMPLES.get(config.task.name)
    if example is None or config.task.path is not None or config.task.simulated_homes:
        example = Example(None, (10, 25, 50))
    sizes = sizes or example.customers
    partner = config.task.newcomer_partner or example.partner or _middle_partner(config)
    if not all(sizes):
        raise InvalidConfig("--customers", "a newcomer needs at least one customer")
    _check_sizes(config, partner, sizes, seeds)
    metric = make_task(prepare(config)).metric
    label = metric_label(metric.name, metric.unit)
    headings = ("its customers", "naive rule", "alone", "joined", "gain by joining")
    lines = [f"| customers of {partner} | " + " | ".join(headings[1:]) + " |",
             "|--:|--:|--:|--:|--:|"]
    table = Table(title=f"{escape(partner)} as a newcomer: test {label} alone and joined, 95% "
                  "intervals")
    for heading in headings:
        table.add_column(heading, justify="right")
    points = []
    for size in sizes:
        rows = []
        for seed in seeds:
            task = replace(config.task, newcomer_partner=partner, newcomer_customers=size)
            run = with_run(replace(config, task=task), f"newcomer-{partner}-{size}", seed)
            rows += [row for row in simulate(run).comparisons if row.partner == partner]
        naive, alone, joined = (averaged([getattr(row, name) for row in rows])
                                for name in ("naive", "local", "federated"))
        gain = averaged([row.gain_over_local for row in rows])
        points.append(NewcomerPoint(size, alone, joined))
        cells = (str(size), interval_text(naive), interval_text(alone), interval_text(joined),
                 interval_text(gain, signed=True))
        table.add_row(*cells)
        lines.append(f"| {' | '.join(cells)} |")
    _record(config, partner, points, metric.name, label)
    if place is not None:
        place.write("\n".join(lines))
    Console().print(table)


def _check_sizes(config: Config, partner: str, sizes: tuple[int, ...],
                 seeds: tuple[int, ...]) -> None:
    """Raises InvalidConfig where the partner trains on fewer customers than the largest size:
    before the runs of the smaller ones, not after."""
    import tempfile

    from experiments.simulate import prepared
    from learning.registry import forget_partners

    task = replace(config.task, newcomer_partner=partner, newcomer_customers=max(sizes))
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
            prepared(replace(config, task=task, seed=seed), Path(folder))
        forget_partners()


def _middle_partner(config: Config) -> str:
    """Neither the largest, whose absence would weaken the federation most, nor the smallest,
    whose few test customers would say little."""
    import tempfile

    from learning.registry import make_task

    with tempfile.TemporaryDirectory(prefix="veilsum-") as folder:
        names = sorted(make_task(config).split_by_partner(Path(folder)))
    return names[(len(names) - 1) // 2]


def _record(config: Config, partner: str, points: list,  # type: ignore[type-arg]
            metric: str, label: str) -> None:
    from learning.registry import make_task
    from server.figures import newcomer
    from server.tracking import DatasetDescription, RunTracker

    tracking = replace(config.tracking, run_name=f"newcomer-{partner}-summary")
    dataset = DatasetDescription(**make_task(config).describe())
    with RunTracker.start(replace(config, tracking=tracking), dataset=dataset) as tracker:
        for point in points:
            tracker.log_round(point.customers, {
                f"oracle/test/{metric}_newcomer": point.joined.value,
                f"oracle/test/{metric}_newcomer_alone": point.alone.value})
        tracker.finish({}, {"newcomer": newcomer(points, metric=label)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
