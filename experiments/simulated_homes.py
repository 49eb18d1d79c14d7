"""Do simulated homes look like real ones? ``python -m experiments.simulated_homes out=FILE.png``

Draws the statistics of learning.load_statistics of the real training homes (training days only:
all that the generator has seen) and of as many simulated homes as ``homes=`` says, in the same
proportion of utilities, into one figure, and prints them as a Markdown table.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from conf.schema import InvalidConfig, TaskConfig
from learning.load_features import Home
from learning.load_statistics import STATISTICS, daily_profile, table
from learning.simulated_homes import Generator
from learning.utility_load import UtilityLoad
from server.figure_style import BLUE, FAINT, INK, MUTED, ORANGE

_DEFAULTS = {"out": "", "homes": "200", "seed": "0"}
_LABELS = {"real": BLUE, "simulated": ORANGE}


@dataclass(frozen=True)
class Compared:
    """Real and simulated homes, by utility."""

    real: Mapping[str, Sequence[Home]]
    simulated: Mapping[str, Sequence[Home]]

    @classmethod
    def of(cls, training: Mapping[str, Sequence[Home]], homes: int, seed: int) -> Compared:
        """``training``: by partner, as UtilityLoad.training_homes gives them."""
        grouped = Generator.groups(training)
        generator = Generator.fit(training)
        total, random = sum(map(len, grouped.values())), np.random.default_rng(seed)
        simulated = {kind: generator.homes(kind, max(2, round(homes * len(part) / total)), random)
                     for kind, part in grouped.items()}
        return cls(grouped, simulated)

    def everyone(self) -> dict[str, list[Home]]:
        """"real" and "simulated", all utilities together."""
        return {name: [home for part in getattr(self, name).values() for home in part]
                for name in _LABELS}


def markdown(compared: Compared) -> str:
    """Medians, with the 10% and 90% quantiles over homes, by utility."""
    kinds = list(compared.real)
    columns = [f"{kind}, {name}" for kind in kinds for name in _LABELS]
    lines = ["| median [10%, 90%] over homes | " + " | ".join(columns) + " |",
             "|---|" + "--:|" * len(columns)]
    tables = [table(getattr(compared, name)[kind]) for kind in kinds for name in _LABELS]
    lines += [f"| {text} | " + " | ".join(_spread(one[name]) for one in tables) + " |"
              for name, text in STATISTICS.items()]
    return "\n".join(lines)


def figure(compared: Compared) -> Figure:
    """A panel per statistic: share of homes below each value; and one of the mean day."""
    drawn = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(3, 3).ravel()
    everyone = compared.everyone()
    tables = {name: table(homes) for name, homes in everyone.items()}
    for axes, (statistic, text) in zip(panels, STATISTICS.items(), strict=False):
        for name, color in _LABELS.items():
            values = np.sort(tables[name][statistic][np.isfinite(tables[name][statistic])])
            axes.plot(values, (np.arange(len(values)) + 0.5) / max(1, len(values)), color=color,
                      linestyle="-" if name == "real" else "--", linewidth=1.8, label=name)
        _style(axes, text)
    for name, color in _LABELS.items():
        _mean_day(panels[len(STATISTICS)], everyone[name], color, name)
    _style(panels[len(STATISTICS)], "mean day over its mean: median home and 10% to 90%")
    panels[len(STATISTICS)].set_xlabel("hour of the day", color=INK)
    panels[0].set_ylabel("share of homes below", color=INK)
    panels[0].legend(frameon=False)
    counts = ", ".join(f"{len(homes)} {name}" for name, homes in everyone.items())
    drawn.suptitle(f"Simulated homes against the real ones they were fitted to ({counts})",
                   fontweight="bold")
    return drawn


def _mean_day(axes: Axes, homes: Sequence[Home], color: str, name: str) -> None:
    low, middle, high = np.quantile([daily_profile(home) for home in homes], [0.1, 0.5, 0.9],
                                    axis=0)
    hours = np.arange(len(middle))
    axes.fill_between(hours, low, high, color=color, alpha=0.12, linewidth=0)
    axes.plot(hours, middle, color=color, linestyle="-" if name == "real" else "--")


def _style(axes: Axes, title: str) -> None:
    words, lines = title.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 38:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    axes.set_title("\n".join(lines), fontsize=9, color=INK)
    axes.grid(color=FAINT)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(values: NDArray[np.float64]) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _options(argv: Sequence[str]) -> dict[str, str]:
    """Raises InvalidConfig."""
    options = dict(_DEFAULTS)
    for argument in argv:
        key, _, value = argument.partition("=")
        if key not in options or not value:
            raise InvalidConfig(key, f"is not one of {', '.join(options)}; write out=FILE.png")
        options[key] = value
    for key in ("homes", "seed"):
        if not options[key].isdecimal():
            raise InvalidConfig(key, f"{options[key]!r} is not a whole number")
    if not options["out"].endswith(".png"):
        raise InvalidConfig("out", "name the figure to write: out=FILE.png")
    return options


def main(argv: Sequence[str]) -> int:
    try:
        options = _options(argv)
        from learning.sources import homes

        config, seed = UtilityLoad.prepare(TaskConfig(name="utility_load")), int(options["seed"])
        training = UtilityLoad(config, seed).training_homes(homes.readings())
    except InvalidConfig as error:
        print(f"simulated_homes: {error}", file=sys.stderr)
        return 2
    compared = Compared.of(training, int(options["homes"]), seed)
    figure(compared).savefig(Path(options["out"]), dpi=110)
    print(markdown(compared))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
