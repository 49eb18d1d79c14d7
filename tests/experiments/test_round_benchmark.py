"""The benchmark of rounds still runs the real server and clients, and times every part."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks.round import workload
from experiments.benchmarks.round.__main__ import figure, table
from experiments.benchmarks.round.measure import measure
from experiments.benchmarks.round.stopwatch import PARTS
from learning.customers import InputShape


def test_a_small_round_is_timed_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CLIENTS", 3), ("CUSTOMERS", 4), ("EXAMPLES", 2), ("FEATURES", 5),
                        ("HIDDEN", 6)):
        monkeypatch.setattr(workload, name, value)
    monkeypatch.setattr(workload.Workload, "shape", InputShape(1, 5))
    times = measure(("plaintext", "shared_key"), 1, 16, tmp_path)
    assert {found.parameters for found in times.values()} == {6 * 7 + 1}
    for label, _ in PARTS:
        assert times["shared_key"].part_s(label) > 0, label
    text = table(times, repeats=1, bits=16)
    assert text.startswith("3 clients x 4 customers x 2 examples, 43 parameters, 16 bits")
    assert "| plaintext | " in text and "| 1.00 | met |" in text
    assert len(figure(times).axes[0].patches) == 2 * len(PARTS)
