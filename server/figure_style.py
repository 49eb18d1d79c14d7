"""How every figure looks: colours, type, a title over the axes, one line of legend.

No pyplot, no global state: a figure belongs to its caller. Colours are Okabe and Ito's, which
colour-blind readers tell apart.
"""

from __future__ import annotations

import math
import textwrap

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from learning.results import Estimate

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, MUTED, FAINT = "#222222", "#666666", "#E4E4E4"
SIZE_INCHES = (8.0, 4.8)
_HEADER_INCHES, _LINE_INCHES = 0.72, 0.21
"""Room for the title and one line of legend, and for each further line."""

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
    "text.parse_math": False,  # names and settings may hold dollars; ticks are told one by one
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
    height = figure.get_figheight()
    top = 1 - 0.36 / height
    handles, labels = axes.get_legend_handles_labels()
    room = _HEADER_INCHES + _LINE_INCHES * (math.ceil(len(labels) / columns) - 1)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - room / height))
    figure.legend(handles, labels, loc="upper left",
                  bbox_to_anchor=(0.0, top), ncols=columns, fontsize=10, frameon=False,
                  borderaxespad=0.2, handlelength=2.2, columnspacing=1.6)


def under_figure(figure: Figure, text: str) -> None:
    """A caption of the horizontal axis over the whole figure's width: beside long names the axes
    are narrower than a sentence."""
    figure.supxlabel(text, fontsize=11, color=INK)


def few_plain_ticks(axes: Axes) -> None:
    """On the horizontal axis, so that small gains (0.0002) neither touch each other nor become a
    factor (1e-5) that stands somewhere else."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    axes.xaxis.set_major_formatter(formatter)


def wrapped(text: str, width: int, most: int) -> str:
    """``text`` in at most ``most`` lines of ``width`` characters, with an ellipsis for the rest."""
    return "\n".join(textwrap.wrap(text, width, max_lines=most, placeholder="…")) or text


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
