"""A sweep: which keys it has, and the one figure that its points become."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.sweep import Point, sweep_figures, swept_keys
from learning.results import Comparison, Estimate, RunResult


@pytest.mark.parametrize(("argv", "keys"), [
    (["-m", "privacy.epsilon=1,3", "seed=0,1", "model=mlp"], ("privacy.epsilon", "seed")),
    (["privacy=none,local_dp", "--multirun"], ("privacy",)),
    (["-m", "task.categories=[a,b]"], ()),
    (["privacy.epsilon=1"], ()),
])
def test_the_swept_keys_are_those_with_several_values(argv: list[str],
                                                      keys: tuple[str, ...]) -> None:
    assert swept_keys(argv) == keys


def _result(federated: float) -> RunResult:
    level, value = Estimate(.6, .5, .7), Estimate(federated, federated - .1, federated + .1)
    row = Comparison("all", 9, level, level, level, value, Estimate(.1, .05, .2),
                     Estimate(.0, -.1, .1))
    return RunResult("auc", (row, replace(row, partner="a")), {}, "noise_shares", 3.0, 7.0, 1e-5,
                     "plaintext", 2, 40, 2.0, 1.0, "id", "sqlite:///mlflow.db")


def _points(*settings: tuple[dict[str, str], float]) -> list[Point]:
    return [Point(typed, _result(value)) for typed, value in settings]


def test_points_stand_in_the_order_of_their_numbers_averaged_over_seeds() -> None:
    points = _points(*(({"privacy.epsilon": epsilon, "seed": seed}, value)
                       for epsilon, seed, value in (("10", "0", .7), ("10", "1", .9),
                                                    ("3", "0", .6), ("3", "1", .6))))
    levels, gains = sweep_figures(points)["sweep"].axes
    assert [label.get_text() for label in gains.get_xticklabels()] == ["3", "10"]
    assert "mean of 2 seeds" in gains.get_xlabel() and "1e-05" in gains.get_xlabel()
    federated = next(line for line in levels.lines if line.get_label() == "federated")
    assert list(federated.get_ydata()) == pytest.approx([.6, .8])
    hollow = {line.get_marker() for line in gains.lines if line.get_markerfacecolor() == "white"}
    assert hollow == {"s"}  # over each alone: its interval holds zero


def test_named_values_keep_the_order_typed_and_are_not_joined() -> None:
    points = _points(({"privacy": "none"}, .7), ({"privacy": "local_dp"}, .6))
    levels, gains = sweep_figures(points)["sweep"].axes
    assert [label.get_text() for label in gains.get_xticklabels()] == ["none", "local_dp"]
    assert {line.get_linestyle() for line in levels.lines} == {"None"}


def test_several_keys_become_a_line_a_combination() -> None:
    points = _points(*(({"model": model, "privacy.epsilon": epsilon}, .7)
                       for model in ("linear", "mlp") for epsilon in ("1", "3")))
    (axes,) = sweep_figures(points)["sweep"].axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == 4 and shown[1] == "model=linear, privacy.epsilon=3  (0.700)"


def test_without_comparisons_there_is_no_figure() -> None:
    point = Point({"privacy.epsilon": "1"}, replace(_result(.7), comparisons=()))
    assert sweep_figures([point]) == {}
