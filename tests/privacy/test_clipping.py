"""One customer's row never counts more than the clip norm, whatever it holds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from privacy import clipping
from privacy.clipping import clip_and_sum, clip_rows

ANY_ROWS = arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(1, 6)),
                  elements=st.floats(allow_nan=True, allow_infinity=True, width=64))
ANY_FLOAT32 = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)),
                     elements=st.floats(allow_nan=True, allow_infinity=True, width=32))


def exact_square(row: NDArray[np.float64]) -> Fraction:
    return sum((Fraction(float(value)) ** 2 for value in row), start=Fraction(0))


@settings(max_examples=200, deadline=None)
@given(st.one_of(ANY_ROWS, ANY_FLOAT32), st.sampled_from([0.1, 1.0, 2.0, 1e3]))
def test_no_row_exceeds_the_clip_norm_in_exact_arithmetic(
        rows: NDArray[np.floating], clip: float) -> None:
    clipped = clip_rows(rows, clip)
    assert clipped.dtype == np.float64 and clipped.shape == rows.shape
    assert np.isfinite(clipped).all()
    for before, after in zip(rows, clipped, strict=True):
        assert exact_square(after) <= Fraction(clip) ** 2
        if not np.isfinite(before).all():
            assert not after.any()
        elif exact_square(before) <= (Fraction(clip) * Fraction(999_999, 1_000_000)) ** 2:
            assert (np.abs(after) <= np.abs(before)).all()
            assert (np.abs(before - after) <= clip * 2.0**-30).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_customer_contributes_zero(poison: float) -> None:
    rows = np.full((3, 4), 0.1)
    rows[1, 2] = poison
    assert np.allclose(clip_and_sum(rows, 1.0), 0.2)


@pytest.mark.parametrize("huge", [1e38, 1e200, 1.7e308])
def test_a_huge_customer_counts_exactly_the_clip_norm(huge: float) -> None:
    rows = np.array([[huge, -huge, huge, huge], [0.0, 0.0, 0.0, 0.0]])
    assert np.allclose(clip_and_sum(rows, 2.0), [1, -1, 1, 1])


def test_direction_is_kept_and_the_input_is_not_changed() -> None:
    rows = np.array([[3.0, 4.0]], np.float32)
    assert np.allclose(clip_rows(rows, 1.0), [[0.6, 0.8]], rtol=1e-8)
    assert np.array_equal(rows, [[3.0, 4.0]])


@settings(max_examples=200, deadline=None)
@given(st.one_of(ANY_ROWS, ANY_FLOAT32), st.sampled_from([0.1, 1.0, 1e3]))
def test_the_sum_is_that_of_the_clipped_rows(rows: NDArray[np.floating], clip: float) -> None:
    assert np.array_equal(clip_and_sum(rows, clip), clip_rows(rows, clip).sum(axis=0))


def test_nobody_sums_to_zeros() -> None:
    assert np.array_equal(clip_and_sum(np.zeros((0, 3)), 1.0), np.zeros(3))


def test_many_rows_lose_nothing_but_what_is_cut_of_each() -> None:
    rows = np.full((200_000, 1), 1e-3, np.float32)
    one = clip_rows(rows[:1], 1.0)[0, 0]
    assert 0 <= float(rows[0, 0]) - one < 2.0**-30
    assert clip_and_sum(rows, 1.0)[0] == 200_000 * one


@settings(max_examples=200, deadline=None)
@given(st.one_of(ANY_ROWS, ANY_FLOAT32), st.sampled_from([0.1, 1.0, 0.7, 1e3]), st.randoms())
def test_each_row_is_its_own_to_the_bit_and_parts_add_up(
        rows: NDArray[np.floating], clip: float, random) -> None:
    """Whoever else is there, however bad their rows: alone, in another order, in parts."""
    clipped = clip_rows(rows, clip)
    alone = [clip_rows(row[None], clip)[0] for row in rows]
    order = random.sample(range(len(rows)), len(rows))
    assert all(map(np.array_equal, clipped, alone))
    assert np.array_equal(clip_rows(rows[order], clip), clipped[order])
    cut = random.randint(0, len(rows))
    parts = clip_and_sum(rows[:cut], clip) + clip_and_sum(rows[cut:], clip)
    assert parts.tobytes() == (clip_and_sum(rows, clip) + 0.0).tobytes()


def test_more_customers_than_an_exact_sum_takes_are_refused(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(clipping, "MOST_CUSTOMERS", 3)
    with pytest.raises(ValueError, match="4 customers in one sum"):
        clip_and_sum(np.zeros((4, 1)), 1.0)


@settings(max_examples=100, deadline=None)
@given(ANY_ROWS.filter(len), st.floats(0.1, 10), st.randoms())
def test_leaving_one_customer_out_changes_the_sum_by_at_most_the_clip_norm(
        rows: NDArray[np.float64], clip: float, random) -> None:
    left_out = random.randrange(len(rows))
    change = clip_and_sum(rows, clip) - clip_and_sum(np.delete(rows, left_out, axis=0), clip)
    assert np.array_equal(change, clip_rows(rows[left_out:left_out + 1], clip)[0])
    assert exact_square(change) <= Fraction(clip) ** 2
