"""Every figure draws, with missing parts too, and says only what its numbers support."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from itertools import pairwise

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from learning.results import Comparison, Estimate
from server.figures import (
    NewcomerPoint,
    epsilon_over_rounds,
    gain_per_partner,
    learning_curve,
    newcomer,
)
from server.sweep_figures import SweepPoint, over_setting, settings_compared

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


def _inside(figure: Figure, texts: Iterable[Text]) -> bool:
    boxes = [text.get_window_extent() for text in texts]
    return bool(boxes) and all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1
                               for box in boxes)


def test_a_legend_of_two_lines_stands_above_the_axes() -> None:
    values = [.6, .65, .7]
    figure = learning_curve([1, 2, 3], values, values, .6, .7, .701, errors=[.02] * 3,
                            as_released=values)
    draw(figure)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4
    assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


NAME = "Stadtwerke Überlingen am Bodensee, Netz und Vertrieb Süd"


@pytest.mark.parametrize(("name", "scale"), [(NAME, 1.0), (NAME * 3, 1e-2), (r"US$\frac$", 1e-4)])
def test_no_name_and_no_small_gain_pushes_text_out_or_together(name: str, scale: float) -> None:
    gain = Estimate(.02 * scale, -.01 * scale, .05 * scale)
    one, other = row(name, 12, gain), row("all", 100, gain)
    compared = [SweepPoint(f"model={model}, task.categories=[{name}], privacy.epsilon=3", one)
                for model in ("linear", "mlp")]
    for figure in (gain_per_partner([one, other], metric="MAE, kWh"),
                   settings_compared(compared, metric="MAE, kWh", seeds=3)):
        text = draw(figure)
        axes = figure.axes[0]
        assert _inside(figure, [*figure.texts, *axes.get_yticklabels()])
        assert name.split()[0] in text
        assert axes.get_window_extent().width > 0.4 * figure.bbox.width
        _apart(axes.get_xticklabels())
        assert not axes.xaxis.get_offset_text().get_text()


def test_long_values_of_a_sweep_stand_apart_under_their_points() -> None:
    points = [SweepPoint(value, row("all", 9, Estimate(.1)))
              for value in (NAME, "x" * 30, r"$\frac$", "retail_repeat-mlp-with-more", "fedadam")]
    figure = over_setting(points, question="?", setting=r"$\frac$", metric="AUC", ordered=False)
    draw(figure)
    _apart(figure.axes[1].get_xticklabels())


def _apart(labels: Iterable[Text]) -> None:
    boxes = sorted((label.get_window_extent() for label in labels if label.get_text()),
                   key=lambda box: box.x0)
    assert len(boxes) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
