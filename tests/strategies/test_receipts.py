"""A receipt survives the wire, at four bytes a value, and hostile bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encryption.types import Refused
from strategies.fold import NoMemory
from strategies.receipts import Receipt

INTEGERS = st.lists(st.integers(-(2**62), 2**62) | st.integers(-(2**31), 2**31 - 1), max_size=9)


@given(st.integers(1, 10**6), st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=5), INTEGERS,
       st.binary(min_size=32, max_size=32))
def test_a_receipt_round_trip(number: int, members: set[int], integers: list[int],
                              mac: bytes) -> None:
    receipt = Receipt(number, tuple(sorted(members)), np.array(integers, np.int64), mac)
    found = Receipt.unpacked(receipt.packed())
    assert (found.round, found.members, found.mac) == (number, receipt.members, mac)
    assert found.integers.tolist() == integers and found.integers.dtype == np.int64


def test_a_value_takes_four_bytes_where_all_fit() -> None:
    values = np.full(10_000, 2**31 - 1)
    receipt = Receipt(1, tuple(range(64)), values, bytes(32))
    assert len(receipt.packed()) == 4 * 10_000 + 44 + 4 * 64
    values[7] += 1
    assert len(receipt.packed()) == 8 * 10_000 + 44 + 4 * 64


@given(st.binary(max_size=200))
def test_any_bytes_are_a_receipt_or_refused(content: bytes) -> None:
    try:
        found = Receipt.unpacked(content)
    except Refused:
        return
    assert len(found.integers) <= len(content) and found.round > 0 and found.members


@pytest.mark.parametrize("harm", [
    lambda packed: packed[:43], lambda packed: packed[:-1], lambda packed: packed + b"x",
    lambda packed: bytes(4) + packed[4:],  # round 0
    lambda packed: packed[:4] + b"\xff" * 4 + packed[8:],  # four billion members
    lambda packed: packed[:4] + bytes(4) + packed[8:],  # none
    lambda packed: packed[:8] + b"\2" + packed[9:],  # integers of two bytes
    lambda packed: packed[:44] + packed[48:52] + packed[44:48] + packed[52:]])  # not ascending
def test_a_harmed_receipt_is_refused(harm) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused):
        Receipt.unpacked(harm(Receipt(3, (1, 2), np.arange(5), b"m" * 32).packed()))


def test_receipts_before_a_gap_are_left_out() -> None:
    memory = NoMemory()
    for number in (1, 2, 4, 5):
        memory.keep_receipt(Receipt(number, (0,), np.zeros(1, np.int64), bytes(32)))
    assert [receipt.round for receipt in memory.receipts(0, 5)] == [4, 5]
    assert [receipt.round for receipt in memory.receipts(0, 2)] == [1, 2]
    assert memory.receipts(2, 3) == () == memory.receipts(5, 5)
