"""The runs of one ``-m`` sweep: children of one MLflow run that answers with one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from conf.compose import from_hydra
from conf.schema import Config, InvalidConfig
from experiments.launch import Stopped, check_optional
from experiments.series import averaged_row
from learning.results import Comparison, RunResult
from server.sweep_figures import SweepPoint, over_setting, settings_compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from server.tracking import RunTracker

_SEED = "seed"
_MOST_ROWS = 40
"""A figure of more combinations is no longer read; the table holds them all."""


@dataclass(frozen=True)
class Point:
    """One run: ``settings`` are the swept keys as typed."""

    settings: Mapping[str, str]
    result: RunResult


@dataclass
class Sweep:
    """Around a Hydra application: :meth:`run` is its work, once for each point.

    Guarantee: the parent run ends with the sweep, as FINISHED, FAILED or KILLED. A call without
    ``-m`` has no parent.
    """

    argv: Sequence[str]
    simulate: Callable[[Config], RunResult]
    points: list[Point] = field(default_factory=list)
    _parent: RunTracker | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def run(self, config: Config) -> None:
        """Simulate one point and print its table. Raises what the simulation raises."""
        from rich.console import Console
        from rich.text import Text

        from experiments.report import result_table

        keys = swept_keys(self.argv)
        if not keys:
            Console().print(result_table(self.simulate(config)))
            return
        if self._parent is None:
            check_points(self.argv)
            self._parent = self._stack.enter_context(_begin(config, keys))
        settings = {key: value for key, value in _typed_now().items() if key in keys}
        Console().print(Text(f"\n{_label(settings)}", style="bold"))
        tracking = replace(config.tracking, parent=self._parent.run_id)
        if tracking.run_name is not None:
            tracking = replace(tracking, run_name=f"{tracking.run_name}-{_label(settings, '-')}")
        result = self.simulate(replace(config, tracking=tracking))
        self.points.append(Point(settings, result))
        Console().print(result_table(result))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None and self._parent is not None:
            with self._stack:
                self._finish(self._parent)
            return
        if isinstance(error, Stopped):
            kind, error = type(error.cause), error.cause
        self._stack.__exit__(kind, error, trace)

    def _finish(self, parent: RunTracker) -> None:
        from rich.console import Console

        from experiments.report import result_markdown, sweep_table

        named = [(_label(point.settings), point.result) for point in self.points]
        for step, point in enumerate(self.points, 1):
            parent.log_round(_step(point, step), _levels(point.result))
        parent.finish({}, sweep_figures(self.points), texts={"sweep.md": result_markdown(named)})
        Console().print()
        Console().print(sweep_table(named, parent.run_id))


def swept_keys(argv: Sequence[str]) -> tuple[str, ...]:
    """The keys that a Hydra command line gives several values, in the order typed; none without
    ``-m``. Raises Hydra's OverrideParseException."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not {"-m", "--multirun"} & set(argv):
        return ()
    return tuple(override.key_or_group for override in OverridesParser.create().parse_overrides(
        _typed(argv)) if override.is_sweep_override())


def _typed(argv: Sequence[str]) -> list[str]:
    return [argument for argument in argv if "=" in argument and not argument.startswith("-")]


def check_points(argv: Sequence[str]) -> None:
    """Raises InvalidConfig, or what Hydra raises, for a point that could only fail, or could not
    stand in one table with the others: before hours of work, not after."""
    from hydra import compose
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()  # for glob(), which names what there is
    overrides = OverridesParser.create(loader).parse_overrides(_typed(argv))
    points = [point for batch in BasicSweeper.split_arguments(overrides, None) for point in batch]
    for point in points:
        check_optional(point)
    configs = [from_hydra(compose("config", overrides=point)) for point in points]
    tasks = {config.task.name: config for config in configs}
    labels = {name: _metric_label(config) for name, config in tasks.items() if len(tasks) > 1}
    if len(set(labels.values())) > 1:
        raise InvalidConfig("task", "a sweep ends in one table and figure, and these differ in "
                            "their metric: " + ", ".join(
                                f"{name} has {label}" for name, label in labels.items())
                            + "; sweep each task by itself")


def _metric_label(config: Config) -> str:
    from learning.registry import make_task, prepare
    from learning.results import metric_label

    metric = make_task(prepare(config)).metric
    return metric_label(metric.name, metric.unit)


def sweep_figures(points: Sequence[Point]) -> dict[str, Figure]:
    """One figure named ``sweep``; none where no run has a comparison. Runs that differ in their
    seed alone are averaged."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.result.comparisons:
            rest = {key: value for key, value in point.settings.items() if key != _SEED}
            groups.setdefault(_label(rest or point.settings), []).append(point)
    if not groups:
        return {}
    first = points[0]
    keys = [key for key in first.settings if key != _SEED] or list(first.settings)
    rows = [(found[0], _averaged(found)) for found in groups.values()]
    seeds = min(map(len, groups.values()))
    metric = first.result.metric_label
    if len(keys) > 1:
        compared = [SweepPoint(_label({key: point.settings[key] for key in keys}), row)
                    for point, row in rows]
        return {"sweep": settings_compared(compared[:_MOST_ROWS], metric=metric, seeds=seeds)}
    numbers = [_number(point.settings[keys[0]]) for point, _ in rows]
    ordered = None not in numbers
    if ordered:
        rows = [row for _, row in sorted(zip(numbers, rows, strict=True),
                                         key=lambda pair: pair[0] or 0.0)]
    return {"sweep": over_setting(
        [SweepPoint(point.settings[keys[0]], row) for point, row in rows],
        question=_question(keys[0]), setting=_axis(keys[0], first.result), metric=metric,
        ordered=ordered, seeds=seeds)}


def _begin(config: Config, keys: tuple[str, ...]) -> RunTracker:
    from learning.registry import make_task, prepare
    from server.tracking import DatasetDescription, RunTracker
    from server.tracking_names import flat_params

    def same(name: str) -> bool:
        """Whether every point of the sweep has this parameter as the first has it."""
        return "experiment" not in keys and not any(
            name == key or name.startswith(f"{key}.") for key in keys)

    params = {name: text for name, text in flat_params(config).items() if same(name)}
    tags = {"sweep": ", ".join(keys),
            "mlflow.note.content": f"A sweep over {', '.join(keys)}; its runs are this run's "
            "children. Picture: *Artifacts* > *figures*; table: *Artifacts* > *sweep.md*."}
    if not (same("privacy.name") and same("encryption.name") and same("encryption.opening")):
        tags["trust"] = "differs from run to run: see each"
    name = config.tracking.run_name or f"sweep-{'-'.join(keys)}"
    dataset = (DatasetDescription(**make_task(prepare(config)).describe())
               if same("task.name") and same("task.path") else None)
    return RunTracker.start(replace(config, tracking=replace(config.tracking, run_name=name)),
                            dataset=dataset, tags=tags, params=params)


def _typed_now() -> dict[str, str]:
    """This point's overrides as typed: key -> value."""
    from hydra.core.hydra_config import HydraConfig

    pairs = (text.lstrip("+").partition("=") for text in HydraConfig.get().overrides.task)
    return {key: value for key, _, value in pairs}


def _label(settings: Mapping[str, str], between: str = ", ") -> str:
    return between.join(f"{key}={value}" for key, value in settings.items())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _step(point: Point, position: int) -> int:
    """Where it stands on MLflow's axis: at its value, if the sweep is over one whole number."""
    number = _number(next(iter(point.settings.values()))) if len(point.settings) == 1 else None
    return int(number) if number is not None and number.is_integer() else position


def _averaged(points: Sequence[Point]) -> Comparison:
    return averaged_row([row for point in points for row in point.result.comparisons
                         if row.partner == "all"])


def _levels(result: RunResult) -> dict[str, float]:
    base = f"oracle/test/{result.metric}"
    return {name: value for row in result.comparisons if row.partner == "all"
            for name, value in {base: row.federated.value, f"{base}_naive": row.naive.value,
                                f"{base}_local": row.local.value,
                                f"{base}_pooled": row.pooled.value}.items()}


def _question(key: str) -> str:
    if key == "privacy.epsilon":
        return "What does privacy cost the federation?"
    return f"What does {key} do to the federation?"


def _axis(key: str, result: RunResult) -> str:
    if key != "privacy.epsilon":
        return key
    return f"ε of the run, at δ = {result.delta:g} (add or remove one customer)"
