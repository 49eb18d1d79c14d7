"""Every figure draws, with missing parts too, and says only what its numbers support."""

from __future__ import annotations

import io
import math

from matplotlib.figure import Figure

from learning.results import Comparison, Estimate
from server.figures import (
    NewcomerPoint,
    epsilon_over_rounds,
    gain_per_partner,
    learning_curve,
    newcomer,
)

NAN = math.nan


def draw(figure: Figure) -> str:
    """All text of a figure that rendered."""
    figure.savefig(io.BytesIO(), format="png", dpi=100)
    axes = figure.axes[0]
    texts = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label,
             *axes.get_yticklabels(), *(t for box in figure.legends for t in box.get_texts())]
    return "\n".join(text.get_text() for text in texts)


def row(partner: str, customers: int, gain: Estimate) -> Comparison:
    return Comparison(partner, customers, *(Estimate(.7),) * 4, gain, gain)


def test_learning_curve_leaves_out_what_is_unknown() -> None:
    full = draw(learning_curve([1, 2, 3], [.6, .9, .7], [.6, .65, .7], .6, .7, .701))
    assert "simulation only" in full and "naive 0.600" in full and "each alone 0.700" in full
    assert "without noise" not in full
    assert "without noise" in draw(learning_curve(
        [1, 2], [.6, .7], [.6, .7], None, None, None, as_released=[.55, .65]))
    bare = draw(learning_curve([1], [.6], None, None, NAN, None))
    assert "simulation" not in bare and "naive" not in bare
    draw(learning_curve([1, 2], [NAN, NAN], None, None, None, None))


def test_gains_are_sorted_and_hollow_where_the_interval_holds_zero() -> None:
    figure = gain_per_partner([
        row("all", 120, Estimate(.1, .05, .2)), row("big", 100, Estimate(.01, -.1, .1)),
        row("small", 20, Estimate(.2, .1, .3)), row("odd", 30, Estimate(NAN))])
    text = draw(figure)
    places = [text.index(f"\n{name}  (") for name in ("small", "odd", "big", "all")]
    assert places == sorted(places)
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines
             if line.get_marker() == "o" and len(line.get_xdata())]
    assert [face == "white" for face in faces] == [False, True, False]


def test_epsilon_says_so_where_there_is_none() -> None:
    assert "planned: 3" in draw(epsilon_over_rounds([1, 2], [1.0, 3.0], [2.0, 6.0], 3.0))
    assert "no finite" in draw(epsilon_over_rounds([1, 2], [math.inf] * 2, None, math.inf))


def test_newcomer_orders_by_size() -> None:
    points = [NewcomerPoint(n, Estimate(.6, .5, .7), Estimate(.7)) for n in (50, 10)]
    figure = newcomer(points)
    draw(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10", "50"]
