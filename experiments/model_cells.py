"""The runs of a table of model sizes: made once, at a rate chosen on validation, and kept."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conf.compose import to_json
from conf.schema import Config
from experiments.in_the_open import Case, Part, composed, with_epsilon
from experiments.series import climb, rung
from learning.registry import make_task, prepare

EPSILONS: Mapping[str, float] = {"ε=1": 1.0, "ε=3": 3.0, "ε=8": 8.0, "no noise": math.inf}
RATE_STEP = 3.0
"""Factor between the learning rates that are tried, from the task's own."""


@dataclass(frozen=True)
class Cell:
    """One run. ``model``: the name of a row."""

    task: str
    model: str
    epsilon: str
    config: Config

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def rate(self) -> float:
        return self.config.strategy.learning_rate

    @property
    def naive_key(self) -> str:
        """Of the naive rule's metric on the same customers."""
        bare = Config(task=self.config.task, seed=self.seed)
        return f"naive {to_json(bare)}"

    def key(self, part: Part) -> str:
        """Everything that the run's metric of ``part`` depends on but the noise. There are no
        heads here."""
        strategy = replace(self.config.strategy, head_learning_rate=1.0)
        config = replace(self.config, strategy=strategy, tracking=Config().tracking)
        return f"{part} {to_json(config)}"

    def at_rate(self, rate: float) -> Cell:
        return replace(self, config=replace(self.config, strategy=replace(
            self.config.strategy, learning_rate=rate)))


class Results:
    """Metrics by key: lines of a file that grows by one with each run, so that neither an
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


class Runs:
    """Metrics of cells: those held, and, unless ``held_only``, of runs made when asked for."""

    def __init__(self, results: Results, held_only: bool) -> None:
        self._results, self._held_only = results, held_only
        self._loaded: tuple[object, Case] | None = None

    def validation(self, cell: Cell) -> float | None:
        """For choosing. The noise is the same for all cells of a seed."""
        return self._value(cell, "validation", np.random.default_rng([cell.seed, 1]))

    def test(self, cell: Cell) -> float | None:
        return self._value(cell, "test", np.random.default_rng())

    def naive(self, cell: Cell) -> float | None:
        """The naive rule's test metric."""
        if (found := self._results.get(cell.naive_key)) is None and not self._held_only:
            self._results.put(cell.naive_key, found := self._case(cell).value(None, "test"))
        return found

    def _value(self, cell: Cell, part: Part, noise: np.random.Generator) -> float | None:
        if (found := self._results.get(cell.key(part))) is None and not self._held_only:
            case = self._case(cell).under(cell.config)
            model = case.train(noise)
            found = case.value(lambda _: model, part)
            self._results.put(cell.key(part), found)
            print(f"{cell.task}, {cell.model}, {cell.epsilon}, seed {cell.seed}, rate "
                  f"{cell.rate:g}: {part} {found:.4f}", file=sys.stderr, flush=True)
        return found

    def _case(self, cell: Cell) -> Case:
        wanted = (cell.naive_key, cell.config.model.reads_history)
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = wanted, Case.of(cell.config)
        return self._loaded[1]


@dataclass(frozen=True)
class Row:
    """A model's runs. ``rates``: with noise and without, None while they are not chosen."""

    model: str
    config: Config
    rates: Mapping[str, float | None]
    """For each ε; None while it is not chosen."""
    tests: Mapping[str, Sequence[float | None]]
    """For each ε, the test metric of each seed; None where a run is missing."""
    naive: Sequence[float | None]


def rows(task: str, models: Mapping[str, Sequence[str]], seeds: Sequence[int],
         overrides: Sequence[str], runs: Runs) -> Iterator[Row]:
    """The rates are chosen on validation customers of the first seed, by steps of RATE_STEP from
    the task's own: without noise first, then down from there the more noise there is, for noise
    never asks for longer steps. Raises InvalidConfig."""
    for model, words in models.items():
        config = composed(f"task={task}", *words, *overrides)
        own = composed(f"task={task}", *overrides).strategy.learning_rate
        better = higher_is_better(config)

        def cell(epsilon: str, seed: int, model: str = model, config: Config = config) -> Cell:
            return Cell(task, model, epsilon,
                        replace(with_epsilon(config, EPSILONS[epsilon]), seed=seed))

        steps: int | None = 0
        rates: dict[str, float | None] = dict.fromkeys(EPSILONS)
        for epsilon in sorted(EPSILONS, key=lambda name: -EPSILONS[name]):
            ways = (1, -1) if math.isinf(EPSILONS[epsilon]) else (-1,)
            steps = best_rate(cell(epsilon, seeds[0]), own, runs.validation, better, steps, ways)
            if steps is None:
                break
            rates[epsilon] = rung(own, RATE_STEP, steps)
        tests: dict[str, list[float | None]] = {epsilon: [] for epsilon in EPSILONS}
        naive = []
        for seed in seeds:
            naive.append(runs.naive(cell("no noise", seed)))
            for epsilon, rate in rates.items():
                tests[epsilon].append(rate and runs.test(cell(epsilon, seed).at_rate(rate)))
        yield Row(model, config, rates, tests, naive)


def best_rate(cell: Cell, own: float, value_of: Callable[[Cell], float | None],
              higher_is_better: bool, begin: int = 0, ways: Sequence[int] = (1, -1)) -> int | None:
    """Steps from ``own`` (experiments.series.climb). None where a value is."""
    def merit(steps: int) -> float:
        value = value_of(cell.at_rate(rung(own, RATE_STEP, steps)))
        if value is None:
            raise _Missing
        return value if higher_is_better else -value

    try:
        return climb(merit, begin, ways)
    except _Missing:
        return None


class _Missing(Exception):
    pass


def higher_is_better(config: Config) -> bool:
    return make_task(prepare(config)).metric.higher_is_better
