from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import InvalidConfig
from experiments.results import markdown
from experiments.series import (
    Place,
    averaged,
    averaged_row,
    interval_text,
    smallest_partner,
    whole_numbers,
)
from learning.results import Comparison, Estimate, RunResult


def _estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1)


def _row(partner: str, customers: int, value: float) -> Comparison:
    return Comparison(partner, customers, *(_estimate(value + i / 100) for i in range(6)))


def _result(value: float) -> RunResult:
    rows = (_row("big", 90, value), _row("small", 10, value), _row("all", 100, value),
            _row("held out", 20, value))
    return RunResult("auc", rows, {}, "noise_shares", 3.0, 7.0, 1e-5, "shared_key", 3, 40, 600.0,
                     1.0, "id", "sqlite:///x")


def test_averages_keep_value_between_bounds() -> None:
    mean = averaged([_estimate(0.4), _estimate(0.6)])
    assert (mean.low, mean.value, mean.high) == pytest.approx((0.4, 0.5, 0.6))


def test_every_estimate_of_a_row_is_averaged() -> None:
    row = averaged_row([_row("a", 10, 0.1), _row("a", 20, 0.3)])
    assert row.customers == 15
    assert row.naive.value == pytest.approx(0.2)
    assert row.gain_over_local.value == pytest.approx(0.25)


def test_the_table_has_a_row_per_setting_and_names_the_smallest_partner() -> None:
    text = markdown([("one", [[_result(0.6)], [_result(0.7)]]),
                     ("two", [[replace(_result(0.6), epsilon_if_key_leaks=float("inf"))]])])
    lines = text.splitlines()
    assert "smallest partner (small)" in lines[0]
    assert len(lines) == 2 + 3 + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "no protection" in lines[-1] and "7.0" in lines[-2]
    assert "noise" not in text


def test_several_draws_say_what_noise_alone_does() -> None:
    """A seed's own mean is no noise."""
    text = markdown([("none", [[_result(0.5)], [_result(0.7)]]),
                     ("noisy", [[_result(0.49), _result(0.51)], [_result(0.68), _result(0.72)]])])
    lines = text.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "mean of 2 seeds, with noise of 2 draws each" in lines[0]
    assert "± " not in lines[-2]
    spread = ((2 * 0.01**2 + 2 * 0.02**2) / 2) ** 0.5
    assert f"| ± {spread:.4f} |" in lines[-1] and "0.630 [" in lines[-1]


def test_a_place_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- results: begin -->\nold\n<!-- results: end -->\nb\n")
    place = Place(document, "results")
    place.check()
    place.write("new")
    assert document.read_text() == "a\n<!-- results: begin -->\nnew\n<!-- results: end -->\nb\n"
    with pytest.raises(InvalidConfig, match="newcomer"):
        Place(document, "newcomer").check()


def test_lists_of_numbers() -> None:
    import argparse

    assert whole_numbers("10,25") == (10, 25)
    for text in ("", "a", "1,-2"):
        with pytest.raises(argparse.ArgumentTypeError):
            whole_numbers(text)


def test_a_value_without_bounds_has_no_brackets() -> None:
    assert interval_text(Estimate(0.5), signed=True) == "+0.500"
    assert interval_text(Estimate(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"


def test_every_task_has_a_place_of_its_own(tmp_path: Path) -> None:
    assert Place.of_task(tmp_path, "results", "retail_repeat").name == "results"
    assert Place.of_task(tmp_path, "results", "utility_load").name == "results utility_load"


def test_the_smallest_partner_has_customers_to_show() -> None:
    some = Estimate(0.5)
    rows = [Comparison(name, customers, some, some, some, some, some, some)
            for name, customers in (("a", 5), ("b", 3), ("c", 0), ("held out", 1), ("all", 9))]
    assert smallest_partner(rows) == "b"
