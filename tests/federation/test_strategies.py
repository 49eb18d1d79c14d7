"""The comparison of strategies: rows that can run, and a table that says what was compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import Config
from experiments import in_the_open, strategies, strategy_study
from experiments.in_the_open import composed
from experiments.series import FARTHEST

CASES = [(task, row) for task in strategies.TASKS
         for row in (strategies.DEFAULT, *strategies.ROWS)]


@pytest.mark.parametrize(("task", "row"), CASES, ids=lambda value: getattr(value, "label", value))
def test_every_row_is_a_run_that_simulate_would_accept(task: str, row: strategies.Row) -> None:
    config = composed(f"task={task}", *row.of(task))
    partners = ["east", "west"]
    federation = replace(config.federation, partners=partners,
                         customers=dict.fromkeys(partners, 50))
    replace(config, federation=federation).validate()
    assert (config == composed(f"task={task}")) == (row is strategies.DEFAULT)


@pytest.mark.parametrize("task", strategies.TASKS)
def test_the_study_covers_what_is_set(task: str) -> None:
    """A file in conf/tuned holds a setting that the study tries, and so does a row."""
    tried = {_rates(composed(f"task={task}", *search.at(steps)))
             for search in strategy_study.searches(task)
             for steps in range(-FARTHEST, FARTHEST + 1)}
    tried |= {_rates(composed(f"task={task}", *words)) for words in ((), ("model=mlp",))}
    for row in (strategies.DEFAULT, *strategies.ROWS):
        assert _rates(composed(f"task={task}", *row.of(task))) in tried, row.label


def _rates(config: Config) -> tuple[object, ...]:
    """What the study chooses; a head's rate only where there is a head."""
    strategy, privacy, head = config.strategy, config.privacy, config.model.head
    head_rate = None if head == "shared" else strategy.head_learning_rate
    numbers = (strategy.learning_rate, strategy.proximal, strategy.adaptivity, head_rate)
    return (strategy.name, config.model.name, head, strategy.momentum, privacy.contribution,
            privacy.clip_norm, privacy.local_steps, privacy.local_learning_rate,
            *(None if number is None else f"{number:.2g}" for number in numbers))


def test_the_table_pairs_each_row_with_the_default(configure, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rows = (strategies.Row("again"), strategies.Row("own intercepts", ("model.head=bias",)))
    monkeypatch.setattr(strategies, "ROWS", rows)
    monkeypatch.setattr(in_the_open, "composed", lambda task, *overrides: configure(
        privacy={"name": "none"}, model={"head": "bias" if "model.head=bias" in overrides
                                         else "shared"}))
    made_by, blank, *rows_of_table = strategies.table("retail_repeat", (0, 1))
    assert "experiments.strategies retail_repeat --write" in made_by and not blank
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows_of_table]
    assert "AUC, mean of 2 seeds" in cells[0][0] and len(cells) == 7
    assert len({len(row) for row in cells}) == 1
    naive, alone, default, again, own = cells[2:]
    assert naive[0] == "naive rule" and "alone" in alone[0]
    assert again[1] == default[1] and again[2] == "+0.000 [+0.000, +0.000]" and not default[2]
    assert own[0] == "own intercepts" and own[1:4] != default[1:4] and own[2]


def test_a_document_without_a_place_is_refused_at_once(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "page.md").write_text("nothing")
    assert strategies.main(["utility_load", "--write", str(tmp_path / "page.md")]) == 2
    assert "strategies utility_load: begin" in capsys.readouterr().err
