"""``python -m experiments.model_sizes``: what a larger model costs and brings, at several ε."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from conf.compose import to_json
from conf.schema import Config, InvalidConfig
from experiments.series import Place, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = ("retail_repeat", "retail_demand", "utility_load", "retail_cross")
MODELS: Mapping[str, tuple[str, ...]] = {
    "linear": ("model=linear",), "mlp, 8 hidden units": ("model=mlp",),
    "mlp, 32 hidden units": ("model=mlp", "model.hidden=32"),
    "tcn": ("model=tcn",), "dpgru": ("model=dpgru",)}
EPSILONS: Mapping[str, float] = {"ε=1": 1.0, "ε=3": 3.0, "ε=8": 8.0, "no noise": math.inf}
ABOUT = """Train federations with small and large models under noise shares, in one process and
without ciphers (experiments.in_the_open), and print the exact test metric over all partners'
customers, a table per task. A run that FILE of --keep holds already is not run again: interrupt
and call again as you like."""


@dataclass(frozen=True)
class Cell:
    """One run of the table."""

    task: str
    model: str
    epsilon: str
    config: Config

    @property
    def key(self) -> str:
        """Everything that the run depends on but the noise."""
        return to_json(replace(self.config, tracking=Config().tracking))

    @property
    def naive_key(self) -> str:
        """Of the naive rule's metric on the same customers."""
        bare = Config(task=self.config.task, seed=self.config.seed)
        return f"naive {to_json(bare)}"


class Results:
    """Test metrics by key: lines of a file that grows by one with each run, so that neither an
    interruption nor a second process on other models loses any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._found: dict[str, float] = dict(json.loads(line) for line in lines)

    def get(self, key: str) -> float | None:
        return self._found.get(key)

    def put(self, key: str, value: float) -> None:
        self._found[key] = value
        with self._path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")


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
    try:
        places = [Place(options.write, f"model_sizes {task}") for task in tasks if options.write]
        for place in places:
            place.check()
        results = Results(options.keep)
        tables = {}
        for task in tasks:
            grid = list(cells(task, options.models, options.seeds, others))
            if not options.held:
                run_missing(grid, results)
            tables[task] = table(grid, results)
            print(f"\n{task}\n\n{tables[task]}", flush=True)
    except InvalidConfig as error:
        print(f"model_sizes: {error}", file=sys.stderr)
        return 2
    for place, text in zip(places, tables.values(), strict=False):
        place.write(text)
    if options.write:
        everything = [cell for task in TASKS
                      for cell in cells(task, MODELS, options.seeds, others)]
        draw(everything, results).savefig(options.write.with_suffix(".png"))
    return 0


def cells(task: str, models: Sequence[str], seeds: Sequence[int],
          overrides: Sequence[str]) -> Iterator[Cell]:
    """Raises InvalidConfig."""
    from experiments.in_the_open import composed, with_epsilon

    for model in models:
        config = composed(f"task={task}", *MODELS[model], *overrides)
        for (label, epsilon), seed in itertools.product(EPSILONS.items(), seeds):
            yield Cell(task, model, label, replace(with_epsilon(config, epsilon), seed=seed))


def run_missing(grid: Sequence[Cell], results: Results) -> None:
    """Train what is not held yet, by the data that runs share, and say how it goes."""
    from experiments.in_the_open import Case

    missing = [cell for cell in grid if results.get(cell.key) is None]
    missing.sort(key=lambda cell: (cell.config.seed, cell.config.model.reads_history))
    case, loaded, began = None, None, time.monotonic()
    for number, cell in enumerate(missing):
        wanted = (cell.config.seed, cell.config.model.reads_history)
        if case is None or loaded != wanted:
            case, loaded = Case.of(cell.config), wanted
            results.put(cell.naive_key, case.value(None, "test"))
        here = case.under(cell.config)
        model = here.train(np.random.default_rng())
        value = here.value(lambda _, model=model: model, "test")
        results.put(cell.key, value)
        left = (time.monotonic() - began) / (number + 1) * (len(missing) - number - 1)
        print(f"{number + 1}/{len(missing)} {cell.task}, {cell.model}, {cell.epsilon}, seed "
              f"{cell.config.seed}: {value:.4f}; about {left / 60:.0f} min left",
              file=sys.stderr, flush=True)


def table(grid: Sequence[Cell], results: Results) -> str:
    """Markdown."""
    from experiments.in_the_open import Case

    case = Case.of(grid[0].config)
    metric = case.task.metric
    better = "higher" if metric.higher_is_better else "lower"
    lines = [f"| test {metric.name}, {better} is better | parameters | bytes up a round | "
             + " | ".join(EPSILONS) + " |",
             "|---|--:|--:|" + "--:|" * len(EPSILONS)]
    for model in dict.fromkeys(cell.model for cell in grid):
        own = [cell for cell in grid if cell.model == model]
        size, sent = upload(case.under(own[0].config).config)
        row = (spread([results.get(cell.key) for cell in own if cell.epsilon == epsilon])
               for epsilon in EPSILONS)
        lines.append(f"| {model} | {size:,} | {sent:,} | " + " | ".join(row) + " |")
    naive = spread([results.get(key) for key in dict.fromkeys(cell.naive_key for cell in grid)])
    lines.append(f"| naive: {case.task.naive_rule} | | |" + f" {naive} |" * len(EPSILONS))
    return "\n".join(lines)


def spread(values: Sequence[float | None]) -> str:
    """ "0.6712 ± 0.0043 (3)": mean and standard deviation of as many seeds as ran."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    width = f" ± {stdev(found):.4f}" if len(found) > 1 else ""
    return f"{mean(found):.4f}{width} ({len(found)})"


def draw(grid: Sequence[Cell], results: Results) -> Figure:
    """A panel for each task that has results: the mean over seeds, a line for each model."""
    from learning.registry import make_task, prepare
    from server.figure_style import BLUE, GREEN, INK, MUTED, ORANGE, legend_above, titled_panels

    known = [(cell, value) for cell in grid if (value := results.get(cell.key)) is not None]
    tasks = list(dict.fromkeys(cell.task for cell, _ in known))
    figure, panels = titled_panels("What does a larger model cost under privacy?",
                                   (1,) * max(1, len(tasks)), height=1.2 + 2.0 * len(tasks))
    styles = zip(MODELS, (INK, BLUE, GREEN, ORANGE, MUTED), "osD^v", strict=True)
    for (model, color, marker), (axes, task) in itertools.product(
            list(styles), zip(panels, tasks, strict=False)):
        own = {place: [value for cell, value in known
                       if (cell.task, cell.model, cell.epsilon) == (task, model, epsilon)]
               for place, epsilon in enumerate(EPSILONS)}
        places = [place for place, values in own.items() if values]
        axes.plot(places, [mean(own[place]) for place in places], color=color, marker=marker,
                  label=model, linewidth=1.6)
    for axes, task in zip(panels, tasks, strict=False):
        metric = make_task(prepare(next(
            cell.config for cell, _ in known if cell.task == task))).metric
        better = "higher" if metric.higher_is_better else "lower"
        axes.set_ylabel(f"{task}\ntest {metric.name}\n({better} is better)", fontsize=9)
    panels[-1].set_xticks(range(len(EPSILONS)), list(EPSILONS))
    legend_above(panels[0], columns=5)
    return figure


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
