"""The picture of a sweep: what a setting does to the federation, beside what it is compared to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learning.results import Comparison, Estimate
from server.figure_style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    few_plain_ticks,
    interval_marker,
    legend_above,
    titled_axes,
    titled_panels,
    under_figure,
    wrapped,
)

_LEVELS: tuple[tuple[str, str, str, str, str], ...] = (
    ("naive", "naive rule", MUTED, "^", ":"),
    ("local", "each alone, no DP", ORANGE, "s", "--"),
    ("pooled", "pooled, no DP", GREEN, "D", "-."),
    ("federated", "federated", BLUE, "o", "-"),
)


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep: what was set, and the test over all partners' customers."""

    label: str
    row: Comparison


def over_setting(points: Sequence[SweepPoint], *, question: str, setting: str, metric: str,
                 ordered: bool, seeds: int = 1) -> Figure:
    """One swept setting: test metric of the four ways, and below it the paired gains.

    ``question``: the title; ``setting``: what the axis shows. ``points`` in the order of the
    axis; ``ordered``: their labels are numbers, so lines may join them. ``seeds``: how many runs
    each point is the mean of.
    """
    figure, (levels, gains) = titled_panels(question, (3, 2), height=7.0)
    line = "" if ordered else "none"
    for number, (name, label, color, marker, dash) in enumerate(_LEVELS):
        places = [place + 0.07 * (number - 1.5) for place in range(len(points))]
        estimates = [getattr(point.row, name) for point in points]
        levels.plot(places, [item.value for item in estimates], color=color, marker=marker,
                    markersize=6, linewidth=2.4 if name == "federated" else 1.4,
                    linestyle=line or dash, label=label)
        _bars(levels, places, estimates, color)
    levels.set_ylabel(f"test {metric}, 95% interval")
    legend_above(levels, columns=4)
    _gains(gains, [point.row for point in points])
    gains.set_xticks(range(len(points)), [wrapped(point.label, max(8, 66 // len(points)), 4)
                                            for point in points], parse_math=False)
    gains.set_xlim(-0.5, len(points) - 0.5)
    mean = "" if seeds == 1 else f"; mean of {seeds} seeds"
    gains.set_xlabel(f"{setting}{mean}\nintervals above share their customers: compare by the "
                     "gains\nhollow marker: the interval holds zero, so these data do not decide")
    for axes in (levels, gains):
        axes.grid(axis="x", visible=False)
    return figure


def settings_compared(points: Sequence[SweepPoint], *, metric: str, seeds: int = 1) -> Figure:
    """Several swept settings: one line a combination, with its paired gains."""
    labels = [wrapped(point.label, 40, 6) for point in points]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = titled_axes("Which of these settings helps?",
                               height=2.1 + max(0.52, 0.12 + 0.19 * lines) * len(points))
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=INK, linewidth=1.0)
    few_plain_ticks(axes)
    for position, point in enumerate(points):
        interval_marker(axes, point.row.gain_over_local, position - 0.14, BLUE, "o")
        interval_marker(axes, point.row.gain_over_naive, position + 0.14, ORANGE, "s")
    axes.set_yticks(range(len(points)), [f"{label}  ({point.row.federated.value:.3f})"
                                         for label, point in zip(labels, points, strict=True)],
                    color=INK, parse_math=False)
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    mean = "" if seeds == 1 else f", mean of {seeds} seeds"
    under_figure(figure, f"gain in test {metric} with 95% interval{mean} (right of zero: federated "
                 f"is better)\nin brackets: the federation's own {metric}; hollow marker: the "
                 "interval holds zero")
    axes.plot([], [], color=BLUE, marker="o", label="over each partner's own model")
    axes.plot([], [], color=ORANGE, marker="s", label="over the naive rule")
    legend_above(axes, columns=2)
    return figure


def _gains(axes: Axes, rows: Sequence[Comparison]) -> None:
    axes.axhline(0, color=INK, linewidth=1.0)
    ways: tuple[tuple[Callable[[Comparison], Estimate], float, str, str, str], ...] = (
        (lambda row: row.gain_over_local, -0.05, ORANGE, "s", "over each alone"),
        (lambda row: row.gain_over_naive, 0.05, MUTED, "^", "over naive"),
    )
    for gain_of, shift, color, marker, label in ways:
        gains = [gain_of(row) for row in rows]
        _bars(axes, [place + shift for place in range(len(rows))], gains, color)
        for place, gain in enumerate(gains):
            clear = gain.low > 0 or gain.high < 0
            axes.plot(place + shift, gain.value, marker=marker, color=color, markersize=6,
                      markerfacecolor=color if clear else "white", markeredgewidth=1.6, zorder=3)
        axes.plot([], [], color=color, marker=marker, linestyle="none", label=label)
    axes.set_ylabel("gain of federated\n(above 0: better)")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.98), fontsize=9, frameon=False, ncols=2,
                borderaxespad=0.0, handletextpad=0.2)


def _bars(axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], color: str) -> None:
    for place, item in zip(places, estimates, strict=True):
        if math.isfinite(item.low) and math.isfinite(item.high):
            axes.vlines(place, item.low, item.high, color=color, linewidth=1.6, alpha=0.6)
