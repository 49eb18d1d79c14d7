"""How every figure looks: colours, type, a title over the axes, one line of legend.

No pyplot, no global state: a figure belongs to its caller. Colours are Okabe and Ito's, which
colour-blind readers tell apart.
"""

from __future__ import annotations

import math

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from learning.results import Estimate

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, MUTED, FAINT = "#222222", "#666666", "#E4E4E4"
SIZE_INCHES = (8.0, 4.8)
_HEADER_INCHES = 0.72
"""Room for the title and one line of legend."""

_STYLE = {
    "font.size": 11.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "figure.dpi": 100.0,
}


def titled_axes(title: str, height: float = SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    figure, (axes,) = titled_panels(title, (1,), height)
    return figure, axes


def titled_panels(title: str, ratios: tuple[int, ...], height: float) -> tuple[Figure, list[Axes]]:
    """Panels above one another over one horizontal axis, as high as ``ratios`` say."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)
        figure.text(0.012, 1 - 0.1 / height, title, va="top", fontsize=13, fontweight="bold")
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - _HEADER_INCHES / height))
        return figure, list(panels[:, 0])


def legend_above(axes: Axes, columns: int) -> None:
    """Between title and axes, from the figure's left edge: long names keep the axes wide."""
    figure = axes.figure
    top = 1 - 0.36 / figure.get_figheight()
    figure.legend(*axes.get_legend_handles_labels(), loc="upper left",
                  bbox_to_anchor=(0.0, top), ncols=columns, fontsize=10, frameon=False,
                  borderaxespad=0.2, handlelength=2.2, columnspacing=1.6)


def interval_marker(axes: Axes, gain: Estimate, position: float, color: str, marker: str) -> None:
    """A gain and its interval; filled where the interval excludes zero."""
    if not math.isfinite(gain.value):
        return
    known = math.isfinite(gain.low) and math.isfinite(gain.high)
    clear = known and (gain.low > 0 or gain.high < 0)
    if known:
        axes.hlines(position, gain.low, gain.high, color=color, linewidth=2.0)
    axes.plot(gain.value, position, marker=marker, color=color, markersize=7,
              markerfacecolor=color if clear else "white", markeredgewidth=1.6, zorder=3)
