"""Packing is exact on the grid for every digit that a sum can have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encryption.control import ControlLayout
from encryption.packing import pack, unpack
from encryption.parameters import CKKSParameters, ImpossibleParameters, choose_parameters

cohorts = st.tuples(st.sampled_from((1, 2, 3, 6, 7, 64, 100)), st.integers(2, 32))


@settings(max_examples=60, deadline=None)
@given(cohorts, st.integers(0, 2**32), st.sampled_from(("random", "low", "high", "signs")))
def test_sums_of_packed_digits_unpack_to_sums(cohort: tuple[int, int], seed: int, kind: str
                                               ) -> None:
    clients, bits = cohort
    parameters = CKKSParameters.for_cohort(clients, bits)
    random, low, high = np.random.default_rng(seed), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    shape = (clients, 2 * parameters.values_per_block)
    digits = {
        "random": lambda: random.integers(low, high + 1, shape),
        "low": lambda: np.full(shape, low),
        "high": lambda: np.full(shape, high),
        "signs": lambda: random.choice([low, high], shape),
    }[kind]().astype(np.int64)
    slots = sum(pack(one, parameters) for one in digits)
    assert slots.shape == (2, parameters.ring_degree // 2)
    found = unpack(slots, parameters)
    assert np.array_equal(found.digits, digits.sum(axis=0))
    assert found.in_range and found.distance == 0


@settings(max_examples=30, deadline=None)
@given(cohorts, st.floats(-0.49, 0.49), st.integers(0, 4095))
def test_distance_is_what_was_added(cohort: tuple[int, int], shift: float, where: int) -> None:
    parameters = CKKSParameters.for_cohort(*cohort)
    slots = pack(np.ones(parameters.values_per_block, np.int64), parameters)
    parts = slots.view(np.float64)
    parts[0, where] += shift
    found = unpack(slots, parameters)
    assert found.distance == pytest.approx(abs(shift), abs=2**-6)
    assert np.array_equal(found.digits, np.ones(parameters.values_per_block))


@pytest.mark.parametrize("bad", (np.nan, np.inf, 1e300, 2.0**60))
def test_what_is_no_sum_is_reported_without_an_exception(bad: float) -> None:
    parameters = CKKSParameters.for_cohort(6, 16)
    slots = np.zeros((1, 2048), np.complex128)
    slots[0, 5] = bad
    assert not unpack(slots, parameters).in_range


@pytest.mark.parametrize("suite", ("shared_key", "plaintext"))
@pytest.mark.parametrize("bits", (8, 10, 16, 20))
def test_the_layout_tiles_its_blocks(suite: str, bits: int) -> None:
    parameters = choose_parameters(suite, 6, bits)
    layout = ControlLayout(5000, 5, parameters)
    assert layout.constant == 5000
    assert layout.partner_map == slice(5001, 5006)
    assert layout.tags.start == layout.covered == 5006
    assert layout.tags.stop - layout.tags.start == 3 * -(-61 // bits)
    assert 0 <= layout.digits - layout.tags.stop < parameters.values_per_block
    assert layout.digits == layout.blocks * parameters.values_per_block


def test_a_layout_must_fit_its_parameters() -> None:
    parameters = choose_parameters("plaintext", 6, 8)
    with pytest.raises(ImpossibleParameters, match="at least one value"):
        ControlLayout(0, 6, parameters)
    with pytest.raises(ImpossibleParameters, match="at most 6"):
        ControlLayout(10, 7, parameters)
