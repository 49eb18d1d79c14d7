"""Receipts: what a round's opened sum was, vouched for by who opened it.

A site steps the model itself, from the public start along the receipts of every round (revealed
runs). The operator keeps and forwards them; it can make none, because their seal needs the key
(:mod:`keyholder.receipts`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encryption.types import Refused

MAC_BYTES = 32
MAX_ROUND = 1_000_000
_HEAD = struct.Struct(f"<III{MAC_BYTES}s")
_MEMBER_BYTES = 4
_WIDE_BYTES = 8


@dataclass(frozen=True)
class Receipt:
    """round: of training, from 1. members: places in the federation's list, ascending: the set
    over which the sum was opened. integers (n,) int64: what was opened. mac: the opener's word."""

    round: int
    members: tuple[int, ...]
    integers: NDArray[np.int64]
    mac: bytes

    def packed(self) -> bytes:
        """round (4), number of members (4), bytes of an integer (4; 4 where all fit, else 8), mac
        (32), the members (4 each), the integers. Little-endian."""
        narrow = self.integers.astype("<i4")
        fits = np.array_equal(narrow, self.integers)
        values = narrow if fits else self.integers.astype("<i8")
        return (_HEAD.pack(self.round, len(self.members), values.itemsize, self.mac)
                + np.array(self.members, "<u4").tobytes() + values.tobytes())

    @classmethod
    def unpacked(cls, content: bytes) -> Receipt:
        """Inverse of :meth:`packed`, for bytes of anybody. Raises Refused. Every integer of the
        result is what the bytes say; only its mac tells whether it is true."""
        if len(content) < _HEAD.size:
            raise Refused("a receipt is too short")
        number, count, width, mac = _HEAD.unpack_from(content)
        start = _HEAD.size + count * _MEMBER_BYTES
        if not 0 < number <= MAX_ROUND or width not in (4, _WIDE_BYTES):
            raise Refused("a receipt names no round, or integers of no known width")
        if start > len(content) or (len(content) - start) % width:
            raise Refused("a receipt has another length than it says")
        members = tuple(np.frombuffer(content, "<u4", count, _HEAD.size).tolist())
        if not members or any(a >= b for a, b in pairwise(members)):
            raise Refused("a receipt's members are none, or not ascending")
        integers = np.frombuffer(content, f"<i{width}", offset=start).astype(np.int64)
        return cls(number, members, integers, mac)


def in_order(receipts: Iterable[Receipt]) -> tuple[Receipt, ...]:
    """Raises Refused unless each is of the round after the one before it."""
    found = tuple(receipts)
    if any(a.round + 1 != b.round for a, b in pairwise(found)):
        raise Refused("the receipts are not those of one round after the other")
    return found
