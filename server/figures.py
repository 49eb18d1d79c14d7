"""The pictures of a run, as pure functions from numbers to matplotlib figures.

No pyplot, no global state: a figure belongs to its caller. Colours are Okabe and Ito's, which
colour-blind readers tell apart; every series also differs by marker, dash or label. A range that
was not computed (NaN) is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    under_figure,
    wrapped,
)


@dataclass(frozen=True)
class NewcomerPoint:
    """A new partner of ``customers`` training customers: its own model against the joined one."""

    customers: int
    alone: Estimate
    joined: Estimate


def learning_curve(rounds: Sequence[int], released: Sequence[float],
                   oracle: Sequence[float] | None, naive: float | None, local: float | None,
                   pooled: float | None, *, metric: str = "AUC",
                   errors: Sequence[float] | None = None, behind: bool = False,
                   as_released: Sequence[float] | None = None) -> Figure:
    """Quality over rounds, against three fixed lines.

    ``released`` is what an operator sees (noised sums); ``oracle`` the exact value, which only a
    simulation knows; ``errors`` the standard error that noise gives the released one, drawn as
    a band; ``as_released`` the same measure without noise, where it is another than the exact one.
    ``behind``: the released value of a round describes the model that it began with, and
    nobody but key holders can know more. A reference that is None or NaN is left out.
    """
    figure, axes = titled_axes("Does the federation beat what partners have today?")
    axes.grid(axis="x", visible=False)
    dot = "o" if len(rounds) == 1 else ""  # a line through one point would not show
    if errors is not None and any(error > 0 for error in errors):
        low, high = ([value + side * error for value, error in zip(released, errors, strict=True)]
                     for side in (-1, 1))
        axes.fill_between(rounds, low, high, color=BLUE, alpha=0.12, linewidth=0,
                          label="± standard error of the noise")
    if oracle is not None:
        axes.plot(rounds, released, color=BLUE, alpha=0.35, linewidth=1.2, marker=dot,
                  label="as released (noised)")
        if as_released is not None:
            axes.plot(rounds, as_released, color=BLUE, alpha=0.6, linewidth=1.6, linestyle=":",
                      marker=dot, label="the same without noise")
        axes.plot(rounds, oracle, color=BLUE, linewidth=2.4, marker=dot,
                  label="exact (simulation only)")
    else:
        axes.plot(rounds, released, color=BLUE, linewidth=2.0, marker=dot,
                  label="as released (noised" + (", one round behind)" if behind else ")"))
    references = [(pooled, GREEN, "pooled data", (0, (6, 2))), (local, ORANGE, "each alone", "--"),
                  (naive, MUTED, "naive", ":")]
    shown = [item for item in references if item[0] is not None and math.isfinite(item[0])]
    for value, color, _, dash in shown:
        axes.axhline(value, color=color, linestyle=dash, linewidth=1.6)
    _limit_to_story(axes, released, [*(oracle or []), *(as_released or []),
                                     *(value for value, *_ in shown)])
    _label_right(axes, [(value, f"{name} {value:.3f}", color) for value, color, name, _ in shown])
    axes.set_xlabel("round")
    axes.set_ylabel(f"{metric} on validation, all partners")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    first = min(rounds, default=0)
    axes.set_xlim(first, max([first + 1, *rounds]))
    legend_above(axes, columns=2 if as_released is not None else 3)
    return figure


def gain_per_partner(comparisons: Iterable[Comparison], *, metric: str = "AUC") -> Figure:
    """Gain of the federated model over each partner's own and over the naive rule, 95% intervals.

    Smallest partner first. Filled markers: the interval excludes zero; hollow: it does not, so
    the data does not say.
    """
    rows = _order(comparisons)
    figure, axes = titled_axes("Who gains from the federation?", height=1.9 + 0.52 * len(rows))
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=INK, linewidth=1.0)
    few_plain_ticks(axes)
    for position, row in enumerate(rows):
        interval_marker(axes, row.gain_over_local, position - 0.14, BLUE, "o")
        interval_marker(axes, row.gain_over_naive, position + 0.14, ORANGE, "s")
    summary = sum(row.partner in ("all", "held out") for row in rows)
    if 0 < summary < len(rows):
        axes.axhline(len(rows) - summary - 0.5, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(rows)),
                    [f"{wrapped(row.partner, 34, 2)}  ({row.customers:,} customers)"
                     for row in rows], color=INK, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    under_figure(figure, f"gain in test {metric} with 95% interval (right of zero: federated is "
                 "better)\nhollow marker: the interval holds zero, so these data do not decide")
    axes.plot([], [], color=BLUE, marker="o", label="over the partner's own model")
    axes.plot([], [], color=ORANGE, marker="s", label="over the naive rule")
    legend_above(axes, columns=2)
    return figure


def epsilon_over_rounds(rounds: Sequence[int], epsilon: Sequence[float],
                        epsilon_if_key_leaks: Sequence[float] | None, limit: float,
                        *, delta: float | None = None) -> Figure:
    """Privacy loss spent so far, for the two cases that every run reports.

    Infinite values are not drawn; a run without privacy says so in words.
    """
    figure, axes = titled_axes("How much privacy has been spent?")
    axes.grid(axis="x", visible=False)
    drawn = False
    for values, color, dash, name in (
        (epsilon_if_key_leaks, ORANGE, "--", "if a colluding key holder opens one partner"),
        (epsilon, BLUE, "-", "of what is released"),
    ):
        points = [(x, y) for x, y in zip(rounds, values or [], strict=False) if math.isfinite(y)]
        if points:
            drawn = True
            axes.plot(*zip(*points, strict=True), color=color, linestyle=dash, linewidth=2.2,
                      label=name)
            axes.annotate(f"{points[-1][1]:.2f}", points[-1], xytext=(6, 0), color=color,
                          textcoords="offset points", va="center", annotation_clip=False)
    if math.isfinite(limit) and drawn:
        axes.axhline(limit, color=MUTED, linestyle=":", linewidth=1.4)
        axes.annotate(f"planned: {limit:g}", (0.01, limit), xycoords=axes.get_yaxis_transform(),
                      xytext=(0, 4), textcoords="offset points", color=MUTED)
    if not drawn:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "This run has no privacy protection, so no finite ε.",
                  transform=axes.transAxes, ha="center", color=MUTED)
        return figure
    given = "" if delta is None else f" at δ = {delta:g}"
    axes.set_ylabel(f"ε so far{given}")
    axes.set_xlabel("round   (unit: add or remove one customer with all its records)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, max(rounds, default=1))
    axes.set_ylim(bottom=0)
    legend_above(axes, columns=2)
    return figure


def newcomer(points: Sequence[NewcomerPoint], *, metric: str = "AUC") -> Figure:
    """A new partner's model alone and joined, over how many customers it brings."""
    figure, axes = titled_axes("Is joining worth it for a new, small partner?")
    axes.grid(axis="x", visible=False)
    ordered = sorted(points, key=lambda point: point.customers)
    places = list(range(len(ordered)))
    for shift, color, marker, name in ((-0.06, ORANGE, "s", "alone"),
                                       (0.06, BLUE, "o", "joined to the federation")):
        estimates = [point.joined if marker == "o" else point.alone for point in ordered]
        xs = [place + shift for place in places]
        axes.plot(xs, [item.value for item in estimates], color=color, marker=marker,
                  markersize=7, linewidth=2.0, label=name)
        for x, item in zip(xs, estimates, strict=True):
            if math.isfinite(item.low) and math.isfinite(item.high):
                axes.vlines(x, item.low, item.high, color=color, linewidth=1.6, alpha=0.6)
    axes.set_xticks(places, [f"{point.customers:,}" for point in ordered])
    axes.set_xlim(-0.4, len(ordered) - 0.6)
    axes.set_xlabel("training customers that the new partner brings")
    axes.set_ylabel(f"test {metric} at the new partner, 95% interval")
    legend_above(axes, columns=2)
    return figure


def _order(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Partners by size, then the rows that sum them up."""
    last = {"all": 1, "held out": 2}
    return sorted(comparisons, key=lambda row: (last.get(row.partner, 0), row.customers))


def _limit_to_story(axes: Axes, noised: Sequence[float], exact: Sequence[float]) -> None:
    """Fit the axis to all exact values and to nine in ten noised ones: one wild draw of the
    noise must not flatten the rest."""
    finite = [value for value in noised if math.isfinite(value)]
    values = [value for value in exact if math.isfinite(value)]
    if finite:
        values += [float(bound) for bound in np.percentile(finite, (5, 95))]
    if values:
        margin = max(max(values) - min(values), 0.01) * 0.12
        axes.set_ylim(min(values) - margin, max(values) + margin)


def _label_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right end of their lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.055
    place = -math.inf
    for value, text, color in sorted(labels):
        place = max(value, place + step)
        axes.annotate(text, (1.01, place), xycoords=axes.get_yaxis_transform(), color=color,
                      va="center", annotation_clip=False, fontsize=10)
