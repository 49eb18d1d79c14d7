"""The bound on the shift that rounding leaves of one customer, against enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from privacy.rounding import squared_shift


def shift(x: NDArray[np.float64], v: NDArray[np.float64],
          u: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(x + v + u) - np.floor(x + u)


VECTORS = arrays(np.float64, 5, elements=st.floats(-50, 50))
UNIFORMS = arrays(np.float64, 5, elements=st.floats(0, 1, exclude_max=True))


@settings(max_examples=300, deadline=None)
@given(VECTORS, VECTORS, UNIFORMS)
def test_the_worst_case_holds_for_every_rounding(
        x: NDArray[np.float64], v: NDArray[np.float64], u: NDArray[np.float64]) -> None:
    bound = np.linalg.norm(v) + math.sqrt(len(v))
    assert np.linalg.norm(shift(x, v, u)) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("v", [0.5, 0.1, 3.5, -2.25, 7.0])
def test_the_mean_square_is_that_of_the_derivation(v: float) -> None:
    u = (np.arange(100_000) + 0.5) / 100_000
    mean = float((shift(np.float64(0.3), np.float64(v), u) ** 2).mean())
    p = v - math.floor(v)
    assert mean == pytest.approx(v ** 2 + p * (1 - p), abs=1e-3)
    assert mean <= v ** 2 + 0.25 + 1e-9


def test_the_running_sum_stays_below_the_bound_in_every_round() -> None:
    """Worst fractions, 400 runs of 50 rounds, failure 1e-6: no run may cross, at any round; and
    the bound is not idle: twice the failure's deviation is not needed."""
    size, clip, rounds, failure = 64, 20.0, 50, 1e-6
    bound = squared_shift(clip, size, rounds, failure)
    v = np.full(size, clip / math.sqrt(size))
    u = np.random.default_rng(1).random((400, rounds, size))
    running = (shift(0.0, v, u) ** 2).sum(axis=2).cumsum(axis=1)
    allowed = bound.once + bound.per_round * np.arange(1, rounds + 1)
    assert (running <= allowed).all()
    assert running[:, -1].mean() > 0.85 * allowed[-1]


@given(st.floats(0.5, 1e4), st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 1000))
def test_no_bound_is_below_the_clip_norm_or_above_the_worst_case(
        clip: float, size: int, rounds: int, other: int) -> None:
    bound = squared_shift(clip, size, rounds, 1e-9)
    worst = (clip + math.sqrt(size)) ** 2
    assert bound.total(rounds) <= rounds * worst * (1 + 1e-9)
    for count in (rounds, other):
        assert bound.total(count) >= count * clip ** 2


def test_nothing_is_charged_before_the_first_round() -> None:
    assert squared_shift(10.0, 30, 100, 1e-9).total(0) == 0.0
