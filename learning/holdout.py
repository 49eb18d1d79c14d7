"""Who stays out of training: decided by a keyed hash of each customer's name alone, so that
adding or removing one customer moves no other to another side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def held_out(names: Sequence[str], seed: int, fraction: float) -> NDArray[np.bool_]:
    """(n,) whether a customer stays out of training: its keyed hash alone decides."""
    return _hashes(names, f"holdout {seed}") < fraction


def first_by_hash(names: Sequence[str], seed: int, among: NDArray[np.bool_],
                  count: int) -> NDArray[np.bool_]:
    """(n,) the ``count`` customers of ``among`` with the smallest keyed hash."""
    hashes = np.where(among, _hashes(names, f"newcomer {seed}"), np.inf)
    chosen = np.zeros(len(names), np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:min(count, int(among.sum()))]] = True
    return chosen


def _hashes(names: Sequence[str], key: str) -> NDArray[np.float64]:
    """(n,) in [0, 1)."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key.encode()).digest()
               for name in names)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.float64) / 2.0**64
