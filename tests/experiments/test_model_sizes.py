"""The table of model sizes: it fills itself, forgets nothing, and covers what it claims to."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.in_the_open import Case, composed
from experiments.model_sizes import MODELS, TASKS, Results, cells, main, spread
from learning.registry import make_task, prepare
from tests.learning.conftest import purchases


@pytest.mark.parametrize("task", TASKS)
def test_sequence_models_see_the_whole_history(task: str) -> None:
    config = prepare(composed(f"task={task}", "model=tcn"))
    shape = make_task(config).shape
    assert shape.steps and config.model.kernel**config.model.levels >= shape.steps
    assert config.model.kernel**(config.model.levels - 1) < shape.steps, "needlessly deep"


def test_every_cell_is_a_run_of_its_own() -> None:
    keys = [cell.key for cell in cells("retail_repeat", list(MODELS), (0, 1), ())]
    assert len(keys) == len(set(keys)) == len(MODELS) * 4 * 2
    (one,), (other,) = ([cell.key for cell in cells("retail_repeat", ["linear"], (0,), more)][:1]
                        for more in ((), ("strategy.rounds=5",)))
    assert one != other


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
