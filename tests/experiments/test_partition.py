"""Partners divided further: nobody lost, nobody twice, and the same division every time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conf.schema import InvalidConfig
from experiments.partition import split_further


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """60 customers in the north, 3 in the south, two events each."""
    found = {}
    for partner, customers in (("north", 60), ("south", 3)):
        names = [f"{partner}-{number}" for number in range(customers)]
        frame = pl.DataFrame({"partner": partner, "customer": names * 2,
                              "value": [float(number) for number in range(2 * customers)]})
        found[partner] = tmp_path / f"{partner}.parquet"
        frame.write_parquet(found[partner])
    return found


def test_every_event_is_in_one_part_and_parts_are_of_one_size(files: dict[str, Path],
                                                              tmp_path: Path) -> None:
    parts = split_further(files, 21, tmp_path)
    assert len(parts) == 21 and parts["south"] == files["south"]
    frames = {name: pl.read_parquet(path) for name, path in parts.items()}
    assert all(set(frame["partner"]) == {name} for name, frame in frames.items())
    assert {frame["customer"].n_unique() for frame in frames.values()} == {3}
    both = [pl.concat(frames.values()), *(pl.concat(map(pl.read_parquet, files.values())),)]
    assert both[0].drop("partner").sort("customer", "value").equals(
        both[1].drop("partner").sort("customer", "value"))


def test_a_division_is_repeatable_and_does_not_follow_the_order_of_names(
        files: dict[str, Path], tmp_path: Path) -> None:
    def members() -> dict[str, list[str]]:
        return {name: sorted(pl.read_parquet(path)["customer"].unique())
                for name, path in split_further(files, 4, tmp_path).items()}

    first = members()
    assert first == members()
    assert sorted(first) == ["north_1", "north_2", "north_3", "south"]
    assert first["north_1"] != sorted(f"north-{number}" for number in range(0, 60, 3))


@pytest.mark.parametrize("partners", [1, 64])
def test_impossible_numbers_name_what_is_possible(files: dict[str, Path], tmp_path: Path,
                                                  partners: int) -> None:
    with pytest.raises(InvalidConfig, match=r"federation.split_into.*from 2 to 63"):
        split_further(files, partners, tmp_path)
