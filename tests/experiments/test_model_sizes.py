"""The table of model sizes: it fills itself, forgets nothing, and covers what it claims to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from experiments.in_the_open import Case, composed
from experiments.model_cells import Cell, Results, best_rate
from experiments.model_sizes import TASKS, main, spread
from learning.registry import make_task, prepare
from tests.learning.conftest import purchases


@pytest.mark.parametrize("task", TASKS)
def test_sequence_models_see_the_whole_history(task: str) -> None:
    config = prepare(composed(f"task={task}", "model=tcn"))
    shape = make_task(config).shape
    assert shape.steps and config.model.kernel**config.model.levels >= shape.steps
    assert config.model.kernel**(config.model.levels - 1) < shape.steps, "needlessly deep"


def cell(*overrides: str) -> Cell:
    return Cell("retail_repeat", "linear", "ε=3", composed("task=retail_repeat", *overrides))


def test_what_changes_a_run_changes_its_key() -> None:
    keys = [one.key(part) for part in ("validation", "test") for one in (
        cell(), cell("seed=1"), cell("strategy.rounds=5"), cell("model=mlp"),
        cell("privacy.epsilon=1"), cell().at_rate(0.7))]
    assert len(set(keys)) == len(keys)
    assert cell("tracking.run_name=other").key("test") == cell().key("test")


@pytest.mark.parametrize("optimum", [0.001, 0.04, 0.3, 0.5, 2.0, 30.0, 1e6])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_chosen_rate_is_the_best_of_its_neighbours(optimum: float, sign: int) -> None:
    def merit(rate: float) -> float:
        return -abs(math.log(rate / optimum))

    tried = []

    def value_of(one: Cell) -> float:
        tried.append(one.rate)
        return math.nan if one.rate > 50 else sign * merit(one.rate)

    found = best_rate(cell(), 0.3, value_of, sign > 0)
    rates = [float(f"{0.3 * 3.0**step:.2g}") for step in range(-4, 5)]
    best = max((rate for rate in rates if rate < 50), key=merit)
    assert found is not None and rates[found + 4] == best
    assert len(tried) == len(set(tried)), "a run was made twice"
    assert best_rate(cell(), 0.3, lambda one: None, True) is None
    down = best_rate(cell(), 0.3, value_of, sign > 0, begin=1, ways=(-1,))
    assert down == min(found, 1)


def test_results_outlive_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    one, other = Results(path), Results(path)
    one.put("a", 1.5)
    other.put("b", 2.5)
    again = Results(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (1.5, 2.5, None)


def test_a_cell_says_how_many_seeds_ran() -> None:
    assert spread([0.5, 0.7, None]) == "0.6000 ± 0.1414 (2)"
    assert spread([0.5]) == "0.5000 (1)"
    assert spread([None, None]) == "–"


def test_a_second_call_runs_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, document = tmp_path / "shop.csv", tmp_path / "sizes.md"
    purchases().write_csv(table)
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path / "cache"))
    marks = "<!-- model_sizes retail_repeat: begin -->\n<!-- model_sizes retail_repeat: end -->\n"
    document.write_text(marks)
    common = [f"task.path={table}", "task.categories=[BREAD,MILK]", "strategy.rounds=2",
              "encryption.bits=20", "--seeds", "0", "--keep", str(tmp_path / "kept")]

    def call(*words: str) -> str:
        assert main(["task=retail_repeat", *common, *words]) == 0
        return capsys.readouterr().out

    assert "| linear | 18 |" in (empty := call("--held")) and empty.count("| – |") >= 5
    first = call("--models", "linear", "tcn")
    monkeypatch.setattr(Case, "train", None)
    assert call("--models", "linear", "tcn", "--write", str(document)) == first
    assert "(1) | 0." in first and "–" not in first
    assert first.split("\n\n", 1)[1].strip() in document.read_text()
    assert document.with_suffix(".png").stat().st_size > 10_000
    assert main(["task=retail_repeat", *common, "--write", str(tmp_path / "none.md")]) == 2


@pytest.mark.parametrize("typo", ["task=retail_repaet", "model.hiden=3", "strategy.rounds=no"])
def test_a_typo_is_one_message(
    typo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [typo] if typo.startswith("task=") else ["task=retail_repeat", typo]
    assert main([*words, "--held", "--keep", str(tmp_path / "kept")]) == 2
    assert capsys.readouterr().err.startswith("model_sizes: ")
