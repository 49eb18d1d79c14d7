"""What a float does to a clipped sum at the widest values is part of the sensitivity."""

import math

import numpy as np
import pytest

from privacy import grid
from privacy.grid import Need


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("mantissa", [17, 23, 31])
def test_neighbours_differ_by_no_more_than_the_grid_takes_them_to(
        bits: int, mantissa: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adversary looks for sums near the end of the range at which adding a customer's part and
    dividing by the step, both rounded, move apart by more than the part."""
    taken: list[float] = []
    real = grid.squared_shift

    def spy(clip_steps: float, size: int, rounds: int, failure: float) -> grid.SquaredShift:
        taken.append(clip_steps)
        return real(clip_steps, size, rounds, failure)

    monkeypatch.setattr(grid, "squared_shift", spy)
    size, clip, step = 400, 0.5, math.ldexp(mantissa, -12)
    need = Need("update", size, clip, 10.0, 5, 1e9, clip, 100, 1e-9, 8.0)
    grid._at(need, step, bits)
    random = np.random.default_rng(bits)
    part = clip / math.sqrt(size)
    end = (2 ** (bits - 1) - 1) * step
    sums = random.uniform(0.6, 1.0, (200, size)) * end
    apart = np.abs((sums + part) / step - sums / step).max(axis=0)
    assert math.sqrt(np.square(apart).sum()) <= taken[0]
    if bits == 32:  # so the room is not for nothing
        assert math.sqrt(np.square(apart).sum()) > clip / step
