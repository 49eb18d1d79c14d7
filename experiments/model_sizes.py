"""``python -m experiments.model_sizes``: what a larger model costs and brings, at several ε."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from conf.schema import Config, InvalidConfig
from experiments.series import Place, whole_numbers
from learning.results import metric_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.model_cells import Row

TASKS = ("retail_repeat", "retail_demand", "utility_load", "retail_cross")
MODELS: Mapping[str, tuple[str, ...]] = {
    "linear": ("model=linear",), "mlp, 8 hidden units": ("model=mlp",),
    "mlp, 32 hidden units": ("model=mlp", "model.hidden=32"),
    "tcn": ("model=tcn",), "dpgru": ("model=dpgru",)}
ABOUT = """Train federations with small and large models under noise shares, in one process and
without ciphers (experiments.in_the_open), and print the exact test metric over all partners'
customers, a table per task. At each ε each model learns at a rate of its own, chosen on validation
customers of the first seed. A run that FILE of --keep holds already is not made again, whatever
became of code and data since (name another FILE then): interrupt and call again as you like."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.model_sizes", description=ABOUT)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="task=NAME for one task alone (default: all), and others as in "
                        "`veilsum simulate`")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="S,S")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], metavar="MODEL",
                        help=f"of {', '.join(map(repr, MODELS))} (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("model_sizes.jsonl"), metavar="FILE")
    parser.add_argument("--held", action="store_true",
                        help="run nothing: show what --keep holds already")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put each table between its "
                        "task's model_sizes markers of FILE, and a figure beside it")
    options = parser.parse_intermixed_args(argv)
    import torch

    torch.set_num_threads(1)
    chosen = [word for word in options.overrides if word.startswith("task=")]
    others = [word for word in options.overrides if word not in chosen]
    tasks = [word.removeprefix("task=") for word in chosen] or TASKS
    from hydra.errors import HydraException

    from experiments.model_cells import Results, Runs, rows

    models = {model: MODELS[model] for model in options.models}
    try:
        places = [Place(options.write, f"model_sizes {task}") for task in tasks if options.write]
        for place in places:
            place.check()
        runs = Runs(Results(options.keep), options.held)
        tables = {}
        for task in tasks:
            tables[task] = table(list(rows(task, models, options.seeds, others, runs)))
            print(f"\n{task}\n\n{tables[task]}", flush=True)
        for place, text in zip(places, tables.values(), strict=False):
            place.write(text)
        if options.write:
            held = Runs(Results(options.keep), held_only=True)
            draw({task: list(rows(task, MODELS, options.seeds, others, held)) for task in TASKS}
                 ).savefig(options.write.with_suffix(".png"))
    except (InvalidConfig, HydraException) as error:
        print(f"model_sizes: {error}", file=sys.stderr)
        return 2
    return 0


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    from experiments.in_the_open import Case
    from experiments.model_cells import EPSILONS

    case = Case.of(rows[0].config)
    metric = case.task.metric
    better = "higher" if metric.higher_is_better else "lower"
    lines = [f"| test {metric_label(metric.name, metric.unit)}, {better} is better | parameters | "
             "bytes up a round | learning rates | " + " | ".join(EPSILONS) + " |",
             "|---|--:|--:|--:|" + "--:|" * len(EPSILONS)]
    for row in rows:
        size, sent = upload(case.under(row.config).config)
        rates = ", ".join("–" if rate is None else f"{rate:g}" for rate in row.rates.values())
        lines.append(f"| {row.model} | {size:,} | {sent:,} | {rates} | "
                     + " | ".join(spread(values) for values in row.tests.values()) + " |")
    naive = spread(rows[0].naive)
    lines.append(f"| naive: {case.task.naive_rule} | | | |" + f" {naive} |" * len(EPSILONS))
    return "\n".join(lines)


def spread(values: Sequence[float | None]) -> str:
    """ "0.6712 ± 0.0043 (3)": mean and standard deviation of as many seeds as ran."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    width = f" ± {stdev(found):.4f}" if len(found) > 1 else ""
    return f"{mean(found):.4f}{width} ({len(found)})"


def draw(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """A panel for each task that has results: the mean over seeds, a line for each model."""
    from experiments.model_cells import EPSILONS
    from learning.registry import make_task, prepare
    from server.figure_style import BLUE, GREEN, INK, MUTED, ORANGE, legend_above, titled_panels

    means = {(task, row.model): [_mean(values) for values in row.tests.values()]
             for task, rows in tables.items() for row in rows}
    tasks = [task for task in tables
             if any(value is not None for model in MODELS for value in means[task, model])]
    figure, panels = titled_panels("What does a larger model cost under privacy?",
                                   (1,) * max(1, len(tasks)), height=1.2 + 2.0 * len(tasks))
    styles = zip(MODELS, (INK, BLUE, GREEN, ORANGE, MUTED), "osD^v", strict=True)
    for (model, color, marker), (axes, task) in itertools.product(
            list(styles), zip(panels, tasks, strict=False)):
        known = [(place, value) for place, value in enumerate(means[task, model])
                 if value is not None]
        axes.plot(*zip(*known, strict=True) if known else ([], []), color=color, marker=marker,
                  label=model, linewidth=1.6)
    for axes, task in zip(panels, tasks, strict=False):
        metric = make_task(prepare(tables[task][0].config)).metric
        better = "higher" if metric.higher_is_better else "lower"
        axes.set_ylabel(f"{task}\ntest {metric_label(metric.name, metric.unit)}\n"
                        f"({better} is better)", fontsize=9)
    panels[-1].set_xticks(range(len(EPSILONS)), list(EPSILONS))
    legend_above(panels[0], columns=5)
    return figure


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def upload(config: Config) -> tuple[int, int]:
    """Parameters, and bytes that a partner sends a round with encryption=shared_key_rlwe: an
    update sealed as in a run, metrics and control values among it."""
    from encryption.types import RoundId
    from keyholder.keys import SharedKey
    from keyholder.sealer import Sealer
    from strategies.agreement import Agreement

    agreement = Agreement.of(replace(
        config, encryption=replace(config.encryption, name="shared_key_rlwe")))
    layout = agreement.layout("train")
    sealer = Sealer(SharedKey.generate(agreement.parameters), layout, 0)
    blocks = sealer.seal(np.zeros(layout.values, np.int64), RoundId("size", 1))
    return agreement.training.region("update").size, sum(map(len, blocks))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
