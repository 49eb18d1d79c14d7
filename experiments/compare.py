"""``veilsum compare RUN RUN``: what two recorded runs differ in, by configuration and outcome."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.text import Text

from conf.schema import Config
from server.recorded import NoSuchRun, RecordedRun, RunStore

if TYPE_CHECKING:
    from rich.table import Table

_GROUPS = ("oracle/test", "test", "oracle/val", "val", "oracle/train", "train", "privacy",
           "encryption", "cohort", "model", "time")
_HIGHER = re.compile(r"(auc|gain_over_\w+?|answered)(_|$)")
_LOWER = re.compile(r"(mae|wape|loss|epsilon|refused|bytes_per_parameter)(_|$)|_error$|_s$")
_NO_BETTER = re.compile(r"_(naive|local|pooled)(_|$)|^model/|^time/(train|open|fold|encrypt)")
"""What the federation's settings do not answer for, and parts of a whole that is compared."""
_WIDE = 110
"""Columns from which intervals fit."""
_DETAIL = re.compile(r"_(low|high|error)$|^time/(train|open|fold|encrypt|evaluate)")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum compare", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print what differs between two recorded runs: settings, metrics, trust.",
        epilog="A run is named by its id, by its name, or by the beginning of either, if only "
        "one run has it.\n`veilsum ui` shows both. Another store: tracking.uri=sqlite:///FILE "
        "or an address.")
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    parser.add_argument("overrides", nargs="*", metavar="tracking.uri=URI",
                        default=[], help="where they are recorded, if not here")
    parser.add_argument("--all", action="store_true",
                        help="partners' metrics too, and metrics that are equal")
    options = parser.parse_intermixed_args(argv)
    from experiments.launch import compose_and_run

    return compose_and_run("veilsum compare", options.overrides, lambda config: _compare(
        config, options.first, options.second, everything=options.all))


def _compare(config: Config, first: str, second: str, *, everything: bool) -> None:
    from rich.console import Console

    store = RunStore(config.tracking.uri)
    runs = store.find(first), store.find(second)
    console = Console()
    if runs[0].run_id == runs[1].run_id:
        raise NoSuchRun(f"{first!r} and {second!r} are the same run, {runs[0].run_id[:8]}")
    for part in report(*runs, everything=everything, width=console.width):
        console.print(part, highlight=False)


def report(a: RecordedRun, b: RecordedRun, *, everything: bool = False,
           width: int = 120) -> Iterator[object]:
    """What there is to print, in order, on ``width`` columns."""
    yield _head(a, b)
    if a.data != b.data:
        yield Text.assemble(
            ("They used different data, so their metrics do not compare: ", "yellow"),
            f"{a.data or 'not stated'}; {b.data or 'not stated'}\n")
    for run in (a, b):
        if run.status != "FINISHED":
            yield f"[yellow]{run.run_id[:8]} is {run.status.lower()}: its metrics are partial.[/]\n"
    yield _settings(a, b)
    yield _outcomes(a, b, everything, width)
    yield from _trust(a, b)


def direction(metric: str) -> int:
    """1 if a higher value is better, -1 if a lower one is, 0 if neither can be said."""
    name = metric.rpartition("/")[2]
    if metric.startswith("time/total") or metric.startswith("time/round"):
        return -1
    if "gain_over_" in name:
        return 1
    if _NO_BETTER.search(metric):
        return 0
    if _LOWER.search(name):
        return -1
    return 1 if _HIGHER.search(name) else 0


def _head(a: RecordedRun, b: RecordedRun) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(style="bold")
    for _ in (a, b):
        table.add_column(overflow="fold")
    for label, of in (("run", lambda run: run.name), ("id", lambda run: run.run_id[:8]),
                      ("began", lambda run: run.began)):
        table.add_row(label, Text(of(a)), Text(of(b)))
    table.add_row("", "")
    return table


def _settings(a: RecordedRun, b: RecordedRun) -> object:
    names = [name for name in {**a.params, **b.params}
             if a.params.get(name) != b.params.get(name)]
    if not names:
        return "Settings: no difference.\n"
    table = _table("Settings that differ", a, b)
    for name in names:
        table.add_row(*(Text(text) for text in (name, a.params.get(name, "-"),
                                                b.params.get(name, "-"))))
    table.add_row("", "", "")
    return table


def _outcomes(a: RecordedRun, b: RecordedRun, everything: bool, width: int) -> object:
    names = sorted({*a.metrics, *b.metrics}, key=_order)
    shown = [name for name in names if everything or _tells(name, a, b)]
    if not shown:
        return "Metrics: no difference.\n"
    wide = width >= _WIDE
    table = _table("Metrics, last values", a, b)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    for name in shown:
        table.add_row(Text(name), *_cells(name, a.metrics, b.metrics, wide))
    table.caption_justify, table.caption = "left", (
        "\\[low, high]: 95% interval; ±: one standard error. " if wide else "")
    table.caption += "open: 95% intervals overlap; else by the value alone."
    if len(shown) < len(names):
        table.caption += f"\n{len(names) - len(shown)} more with --all: equal ones and details."
    return table


def _tells(name: str, a: RecordedRun, b: RecordedRun) -> bool:
    """Whether it belongs in the short list: no partner's own, no part of another line."""
    if _DETAIL.search(name) or a.metrics.get(name) == b.metrics.get(name):
        return False
    partners = {part.partition("=")[0] for run in (a, b)
                for part in run.params.get("federation.customers", "").split(", ")}
    return not any(partner and name.endswith(f"_{partner}") for partner in partners)


def _cells(name: str, a: Mapping[str, float], b: Mapping[str, float],
           wide: bool) -> tuple[str, ...]:
    cells = _value(name, a, wide), _value(name, b, wide)
    if name not in a or name not in b:
        return (*cells, "-", "")
    left, right = a[name], b[name]
    sign = direction(name) * (right > left) - direction(name) * (right < left)
    word = {1: "[green]second[/]", -1: "[red]first[/]", 0: ""}[sign]
    if word and _overlap(name, a, b):
        word = "open"
    return (*cells, _change(right - left), word)


def _value(name: str, metrics: Mapping[str, float], wide: bool) -> str:
    if name not in metrics:
        return "-"
    text, error = _number(metrics[name]), metrics.get(f"{name}_error", 0.0)
    if not wide:
        return text
    if error > 1e-9:  # rounding of sums without noise stays below
        return f"{text} ± {_number(error)}"
    bounds = [metrics[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in metrics]
    return f"{text} \\[{', '.join(map(_number, bounds))}]" if bounds else text


def _number(value: float) -> str:
    plain = value == 0 or 0.001 <= abs(value) < 10_000
    return f"{value:.3f}" if plain else f"{value:.3g}"


def _change(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 10 else f"{value:+.4g}"


def _overlap(name: str, a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether what is known of both values' uncertainty (95%) leaves the order open."""
    def bounds(metrics: Mapping[str, float]) -> tuple[float, float]:
        error = 1.96 * metrics.get(f"{name}_error", 0.0)
        return (metrics.get(f"{name}_low", metrics[name] - error),
                metrics.get(f"{name}_high", metrics[name] + error))

    (low_a, high_a), (low_b, high_b) = bounds(a), bounds(b)
    known = high_a > low_a and high_b > low_b
    return known and low_a <= high_b and low_b <= high_a


def _trust(a: RecordedRun, b: RecordedRun) -> Iterator[Text]:
    first, second = (run.tags.get("trust", "not stated") for run in (a, b))
    if first != second:
        yield Text.assemble("\n", ("Whom they trust differs.", "bold"),
                            f"\n{a.run_id[:8]}  {first}\n{b.run_id[:8]}  {second}")


def _table(title: str, a: RecordedRun, b: RecordedRun) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")  # the longest one gives way on a narrow terminal
    for run in (a, b):
        table.add_column(run.run_id[:8], overflow="fold", justify="right", min_width=8)
    return table


def _order(name: str) -> tuple[int, str]:
    group = name.rpartition("/")[0]
    return (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS), name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
