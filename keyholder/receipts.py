"""The seal on a receipt: who opened a round's sum says what it was, to whoever holds the key.

HMAC-SHA256 (RFC 2104) under a key that :meth:`SharedKey.derive` gives for this purpose alone,
over a prefix-free encoding: every part is of fixed length or follows its own.

Guarantee: without the key nobody makes a seal that :func:`vouched` accepts for anything that was
not sealed: not for another run (whose name at the sites commits to the configuration), round,
kind, set of partners, model that the round was trained from, or integer. Not covered: whoever
holds the key, which is every partner of the federation.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encryption.types import RoundId
from keyholder.keys import SharedKey


def vouch(key: SharedKey, bound: RoundId, kind: str, members: Sequence[int], model: bytes,
          integers: NDArray[np.int64]) -> bytes:
    """32 bytes. bound: the round under the run's name at the sites. model: digest (32 bytes) of
    the model that the round was trained from. integers (n,): what was opened."""
    run, named = bound.run.encode(), kind.encode()
    state = hmac.new(key.derive(b"receipts 1"), b"veilsum receipt 1\0", "sha256")
    for part in (run, named, np.array(members, "<u4").tobytes()):
        state.update(len(part).to_bytes(8, "little") + part)
    state.update(bound.round.to_bytes(8, "little") + model)
    state.update(integers.astype("<i8").tobytes())
    return state.digest()


def vouched(mac: bytes, key: SharedKey, bound: RoundId, kind: str, members: Sequence[int],
            model: bytes, integers: NDArray[np.int64]) -> bool:
    """Whether ``mac`` is :func:`vouch`'s of the same."""
    return hmac.compare_digest(mac, vouch(key, bound, kind, members, model, integers))
