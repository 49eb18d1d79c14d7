"""The answer fits its terminal and marks only what the intervals support."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.report import result_markdown, result_table, sweep_table
from learning.results import Comparison, Estimate, RunResult


def row(partner: str, customers: int, gain: Estimate) -> Comparison:
    around = Estimate(.742, .732, .752)
    return Comparison(partner, customers, around, around, around, around, gain, gain)


RESULT = RunResult(
    "auc",
    (row("all", 12584, Estimate(-.007, -.011, -.003)), row("West Quarter", 1240, Estimate(.1)),
     row("East", 25, Estimate(.048, .004, .092)), row("held out", 516, Estimate(.006, -.004, .01))),
    {"test/auc": .741}, "noise_shares", 3.0, 6.9, 1e-5, "shared_key", 100, 457, 3.42, 71.3,
    "d727673c6bf8", "sqlite:///mlflow.db")


def show(result: RunResult, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(result_table(result))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_row_fits_whole(width: int) -> None:
    lines = show(RESULT, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert text.index("East") < text.index("West Quarter") < text.index("all") < text.index("held")
    (east,) = [line for line in lines if line.startswith("East")]
    assert "+.048 [.004, .092] ▲" in east
    (whole,) = [line for line in lines if line.startswith("all")]
    assert "-.007 [-.011, -.003] ▼" in whole
    for name in ("held out", "West Quarter"):
        (plain,) = [line for line in lines if line.startswith(name)]
        assert "▲" not in plain and "▼" not in plain


def test_the_caption_never_names_epsilon_without_delta_and_unit() -> None:
    text = " ".join(" ".join(show(RESULT, 100)).split())
    assert "ε = 3.00 at δ = 1e-05 (add or remove one customer" in text
    assert "3.42 bytes per parameter" in text and "veilsum ui" in text
    bare = "\n".join(show(replace(RESULT, epsilon=math.inf, comparisons=()), 80))
    assert "none: the model may reveal customers" in bare and "test/auc" in bare


def test_markdown_has_one_row_per_setting() -> None:
    lines = result_markdown([("ours", RESULT), ("none", replace(RESULT, epsilon=math.inf))])
    header, rule, ours, none = lines.strip().splitlines()
    assert header.count("|") == rule.count("|") == ours.count("|") == none.count("|")
    assert "**-.007 [-.011, -.003]**" in ours and none.startswith("| none | none |")


@pytest.mark.parametrize("name", ["werke [nord]", "werke [/süd]", "a:smile:b", "back\\"])
def test_names_are_printed_as_they_are(name: str) -> None:
    named = replace(RESULT, comparisons=(replace(RESULT.comparisons[0], partner=name),
                                         *RESULT.comparisons), warning=f"{name} is late",
                    tracking_uri=f"sqlite:///{name}.db")
    lines = show(named, 140)
    assert any(line.startswith(f"{name} ") for line in lines)
    assert any(f"{name} is late" in line for line in lines)
    assert any(f"sqlite:///{name}.db" in line for line in lines)
    console = Console(width=140, force_terminal=False)
    with console.capture() as capture:
        console.print(sweep_table([(f"task.categories=[{name}]", named)], named.mlflow_run_id))
    text = " ".join(capture.get().split())
    assert f"task.categories=[{name}]" in text and f"sqlite:///{name}.db" in text


@pytest.mark.parametrize(("change", "why"), [
    ({}, "-: the noise is larger than what the held-out customers give"),
    ({"comparisons": ()}, "-: the noise is larger than what the held-out customers give"),
    ({"comparisons": RESULT.comparisons[:3]}, "-: no customers are held out"),
    ({"epsilon": math.inf}, "-: too few customers are held out"),
])
def test_a_released_number_that_is_missing_says_why(change: dict[str, object], why: str) -> None:
    missing = replace(RESULT, released={"test/mae": math.nan, "test/mae_error": math.nan}, **change)
    for width in (80, 140):
        assert why in " ".join(" ".join(show(missing, width)).split())
    assert "held-out customers give" not in "\n".join(show(RESULT, 140))
