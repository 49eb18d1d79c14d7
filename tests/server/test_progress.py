"""Plain lines for logs, a bar for terminals."""

from __future__ import annotations

import io
import math

import pytest

from server.progress import Progress, short


def run(stream: io.StringIO, rounds: int) -> list[str]:
    with Progress(rounds, "val/auc", stream=stream) as progress:
        progress.stage("preparing data")
        progress.begin_rounds()
        for number in range(1, rounds + 1):
            progress.round(number, {"val/auc": .7421, "privacy/epsilon": .512, "time/round_s": 1.2})
        progress.stage("comparing")
    return stream.getvalue().splitlines()


def test_a_log_gets_the_start_every_tenth_and_the_end() -> None:
    lines = run(io.StringIO(), 100)
    assert lines[:2] == ["preparing data ...", "round 1/100 ..."]
    assert lines[2] == "round 1/100  val/auc=.742  epsilon=0.51  1.2 s"
    assert lines[-2].startswith("round 100/100") and lines[-1] == "comparing ..."
    assert len(lines) == 14


def test_a_terminal_gets_its_cursor_back_after_ctrl_c() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(3, "val/auc", stream=out) as progress:
        progress.begin_rounds()
        progress.round(1, {"val/auc": .7, "privacy/epsilon": math.inf, "cohort/refused": 1.0})
        raise KeyboardInterrupt
    assert progress._bar is None
    run(Terminal(), 3)


def test_a_terminal_shows_names_as_they_are() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with Progress(3, "val/auc", stream=out) as progress:
        progress.stage("asking werke [/süd]")
        progress.note("werke [/süd] and [nord] answer no more :smile:")
    assert "werke [/süd] and [nord] answer no more :smile:" in out.getvalue()


@pytest.mark.parametrize(("value", "text"), [
    (.7421, ".742"), (-.0124, "-.012"), (1.0, "1.000"), (math.nan, "-"), (10.5, "10.500")])
def test_short(value: float, text: str) -> None:
    assert short(value) == text
