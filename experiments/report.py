"""The answer of a run, for a terminal and for a document.

Only a gain whose 95% interval excludes zero is marked; every other difference is printed plain,
because the data does not support it. Names from data stand in a Text: a plain string would be read
as markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conf.schema import TrackingConfig
from learning.results import Comparison, Estimate, RunResult
from server.mlflow_store import store_uri

UNIT = "add or remove one customer, all records of it"
_NORMAL, _WIDE = 96, 116
"""Terminal widths from which the federated interval, and one more interval, fit too."""
_SUMMARY = {"all": 1, "held out": 2}
_MOST_PARTNERS = 12
"""Rows that are still read; the smallest partners come first."""


class ResultTable:
    """Rich renderable over one result; shows fewer columns on a narrow terminal."""

    def __init__(self, result: RunResult) -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        result = self._result
        parts: list[object] = []
        if result.comparisons:
            parts.append(_table(result, options.max_width))
            parts.append(Text(_legend(result), style="dim"))
        else:
            parts.append(_released_table(result))
        parts.append(Padding(_facts(result), (1, 0, 0, 0)))
        yield Group(*parts)  # type: ignore[arg-type]


def result_table(result: RunResult) -> ResultTable:
    """One table: who is served how well by what; under it, what that cost."""
    return ResultTable(result)


def result_markdown(results: RunResult | Sequence[tuple[str, RunResult]]) -> str:
    """A README table with one row per setting; ``results`` pairs a setting's name with its run.

    Numbers are of the row "all", with 95% intervals; a bold gain excludes zero.
    """
    named = [(_setting(results), results)] if isinstance(results, RunResult) else list(results)
    metric = named[0][1].metric_label if named else "metric"
    lines = [
        f"| setting | ε | ε if the key leaks | naive {metric} | each alone | pooled | federated "
        "| gain over alone | bytes/parameter | time |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, result in named:
        row = next((row for row in result.comparisons if row.partner == "all"), None)
        cells = [_value(Estimate(math.nan))] * 5 if row is None else [
            _value(row.naive), _value(row.local), _value(row.pooled), _spread(row.federated),
            _markdown_gain(row.gain_over_local)]
        lines.append(" | ".join([
            f"| {name}", _epsilon(result.epsilon), _epsilon(result.epsilon_if_key_leaks), *cells,
            f"{result.upload_bytes_per_parameter:.2f}", f"{result.seconds:.0f} s |"]))
    return "\n".join(lines) + "\n"


def sweep_table(named: Sequence[tuple[str, RunResult]], run_id: str) -> Table:
    """The runs of a sweep side by side: ``named`` pairs what was set with its run; ``run_id``:
    MLflow's of their parent."""
    first = named[0][1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False,
                  title=f"{_title(first)} All customers, one run a line.",
                  title_style="bold", title_justify="left", caption_justify="left",
                  caption=Text(f"Figure and table: the parent run {run_id[:8]} in `veilsum ui"
                               f"{_uri_option(first.tracking_uri)}`", style="table.caption"))
    table.add_column("set", overflow="fold")
    for name in ("naive", "alone", "pooled", "federated", "gain over alone"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in named:
        for row in result.comparisons:
            if row.partner == "all":
                gain = row.gain_over_local
                table.add_row(Text(name), _value(row.naive), _value(row.local),
                              _value(row.pooled), _value(row.federated),
                              _gain(gain, _gain_text(gain)))
    return table


def _title(result: RunResult) -> str:
    better = "" if result.higher_is_better else ", lower is better"
    return f"Test {result.metric_label}{better}: does the federation help?"


def excludes_zero(gain: Estimate) -> bool:
    """Whether the 95% interval is known and lies on one side of zero."""
    return gain.low > 0 or gain.high < 0  # both false for NaN


def _table(result: RunResult, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False,
                  title=_title(result),
                  title_style="bold", title_justify="left")
    table.add_column("partner", overflow="fold", min_width=8)
    for name in ("customers", "naive", "alone", "pooled", "federated", "gain over alone"):
        table.add_column(name, justify="right", no_wrap=True)
    if width >= _NORMAL:
        table.add_column("over naive", justify="right", no_wrap=True)
    rows = _order(result.comparisons)
    left_out = len(rows) - len(_SUMMARY) - _MOST_PARTNERS
    if left_out > 0:
        rows = rows[:_MOST_PARTNERS] + rows[-len(_SUMMARY):]
        table.caption_justify = "left"
        table.caption = f"and {left_out} larger partners: their metrics are in MLflow"
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        starts_summary = after is not None and after.partner in _SUMMARY
        table.add_row(Text(row.partner), *_cells(row, width), style=_row_style(row),
                      end_section=starts_summary and row.partner not in _SUMMARY)
    return table


def _row_style(row: Comparison) -> str:
    return "bold" if row.partner == "all" else ""


def _cells(row: Comparison, width: int) -> list[str | Text]:
    federated = _spread(row.federated) if width >= _NORMAL else _value(row.federated)
    cells: list[str | Text] = [f"{row.customers:,}", _value(row.naive), _value(row.local),
                               _value(row.pooled), federated,
                               _gain(row.gain_over_local, _gain_text(row.gain_over_local))]
    if width >= _NORMAL:
        naive = row.gain_over_naive
        cells.append(_gain(naive, _gain_text(naive) if width >= _WIDE else _signed(naive.value)))
    return cells


def _released_table(result: RunResult) -> Table:
    """A deployment sees noised sums only: no rows per partner, no intervals."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, min_width=40,
                  title="Released metrics (noised sums)", title_style="bold", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in _released(result):
        table.add_row(name, value)
    table.caption_justify, table.caption = "left", _why_missing(result) or None
    return table


def _released(result: RunResult) -> list[tuple[str, str]]:
    """Each released metric with its standard error from noise, where it has one."""
    shown = []
    for name, value in result.released.items():
        error = result.released.get(f"{name}_error", 0.0)
        if not name.endswith("_error"):
            shown.append((name, _short(value) + (f" ± {_short(error)}" if error > 0 else "")))
    return shown


def _why_missing(result: RunResult) -> str:
    """What the ``-`` of a released metric stands for; empty where there is none."""
    if all(math.isfinite(value) for name, value in result.released.items()
           if not name.endswith("_error")):
        return ""
    if result.comparisons and not any(row.partner == "held out" and row.customers
                                      for row in result.comparisons):
        return "-: no customers are held out"
    if math.isfinite(result.epsilon):
        return ("-: the noise is larger than what the held-out customers give; it takes more of "
                "them (task.holdout_fraction), or a larger privacy.epsilon")
    return "-: too few customers are held out"


def _legend(result: RunResult) -> str:
    better = "" if result.higher_is_better else "  A gain above 0: less error."
    return ("[low, high]: 95% interval, customers resampled in pairs.  "
            f"▲ ▼: it excludes zero.{better}\n"
            "These exact numbers exist in a simulation only; a deployment releases noised ones.")


def _facts(result: RunResult) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _fact_lines(result):
        grid.add_row(name, Text(text))
    return grid


def _fact_lines(result: RunResult) -> list[tuple[str, str]]:
    if math.isfinite(result.epsilon):
        privacy = (f"ε = {_epsilon(result.epsilon)} at δ = {result.delta:g} "
                   f"({UNIT}; {result.privacy})")
        leak = f"ε = {_epsilon(result.epsilon_if_key_leaks)} for the partner whose update is opened"
        lines = [("privacy", privacy), ("if a key leaks", leak)]
    else:
        lines = [("privacy", "none: the model may reveal customers")]
    if result.warning:
        lines.append(("warning", result.warning))
    released = "  ".join(f"{name} {value}" for name, value in _released(result))
    if released and result.comparisons:
        noised = ", noised" if math.isfinite(result.epsilon) else ""
        alike = "; customers count alike, compare them with each other" if (
            result.metric == "auc") else ""
        lines.append(("released", f"{released} (held-out customers{noised}{alike})"))
        lines += [("", why)] if (why := _why_missing(result)) else []
    lines.append(("encryption", f"{result.encryption}, {result.upload_bytes_per_parameter:.2f} "
                  f"bytes per parameter and upload ({result.parameters:,} parameters)"))
    lines.append(("time", f"{result.seconds:.0f} s for {result.rounds} rounds"))
    lines.append(("look closer", f"veilsum ui{_uri_option(result.tracking_uri)}   "
                  f"(MLflow run {result.mlflow_run_id[:8]})"))
    return lines


def _uri_option(uri: str) -> str:
    if "@" in uri or uri == store_uri(TrackingConfig().uri):
        return ""
    return f" --tracking-uri {uri}"


def _order(rows: Sequence[Comparison]) -> list[Comparison]:
    """Smallest partner first, because it has most to gain; then the rows that sum up."""
    return sorted(rows, key=lambda row: (_SUMMARY.get(row.partner, 0), row.customers))


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _value(estimate: Estimate) -> str:
    return _short(estimate.value)


def _spread(estimate: Estimate) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return _value(estimate)
    return f"{_value(estimate)} [{_short(estimate.low)}, {_short(estimate.high)}]"


def _signed(value: float) -> str:
    """A sign always: +.012, -.003, and .000 without one."""
    text = _short(value)
    return f"+{text}" if value > 0 and text != ".000" else text.replace("-.000", ".000")


def _gain_text(gain: Estimate) -> str:
    if not math.isfinite(gain.value):
        return "-"
    if not (math.isfinite(gain.low) and math.isfinite(gain.high)):
        return _signed(gain.value)
    return f"{_signed(gain.value)} [{_short(gain.low)}, {_short(gain.high)}]"


def _gain(gain: Estimate, text: str) -> Text:
    """Coloured and marked where the interval excludes zero; the mark survives without colour."""
    if not excludes_zero(gain):
        return Text(f"{text}  ", style="not bold")
    mark, style = ("▲", "green") if gain.low > 0 else ("▼", "red")
    return Text(f"{text} {mark}", style=f"not bold {style}")


def _markdown_gain(gain: Estimate) -> str:
    text = _gain_text(gain)
    return f"**{text}**" if excludes_zero(gain) else text


def _epsilon(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "none"


def _setting(result: RunResult) -> str:
    return f"{result.privacy}, {result.encryption}"
