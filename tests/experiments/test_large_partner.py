"""What a partner with many customers takes does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks.large_partner import tables
from experiments.benchmarks.large_partner.__main__ import measure, row

_GIB = 2**20
"""In the unit of ru_maxrss."""


@pytest.mark.timeout(600)
def test_five_thousand_homes_fit_where_all_their_features_would_not(tmp_path: Path) -> None:
    """Features, targets and goals of three splits take more than 2 GiB, beside the readings and
    PyTorch; kept is 1 GiB."""
    path = tmp_path / "homes.parquet"
    tables.write(tables.homes(5_000, days=150), path)
    found = measure(path, "utility_load", 1, [])
    assert found["customers"] == 5_000 and float(str(found["gigabytes"])) > 1.1
    assert int(str(found["peak_kb"])) < 2.6 * _GIB
    assert "| utility_load | 5,000 | " in row("utility_load", 5_000, found)


def test_a_thousand_categories_take_no_more(tmp_path: Path) -> None:
    path = tmp_path / "households.parquet"
    tables.write(tables.households(500, rows=100, categories=1_000), path)
    names = ",".join(f"CATEGORY {number}" for number in range(1_000))
    found = measure(path, "retail_repeat", 1, [f"task.categories=[{names}]"])
    assert int(str(found["examples"])) > 5_000
    assert int(str(found["peak_kb"])) < 2 * _GIB
