"""A seal fits what was sealed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from encryption.parameters import choose_parameters
from encryption.types import RoundId
from keyholder.keys import SharedKey
from keyholder.receipts import vouch, vouched

SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
SEALED = {"bound": RoundId("run", 3), "kind": "train", "members": (0, 2), "model": b"d" * 32,
          "integers": np.array([5, -7, 2**40])}


@pytest.mark.parametrize("suite", SUITES)
def test_a_seal_fits_what_was_sealed_under_the_same_key_alone(suite: str) -> None:
    key, other = (SharedKey.generate(choose_parameters(suite, 3, 16)) for _ in range(2))
    mac = vouch(key, **SEALED)  # type: ignore[arg-type]
    assert len(mac) == 32 and vouched(mac, key, **SEALED)  # type: ignore[arg-type]
    assert not vouched(mac, other, **SEALED)  # type: ignore[arg-type]
    assert mac not in (key.derive(b"receipts 1"), key.derive(b"tags"))


@pytest.mark.parametrize("change", [
    {"bound": RoundId("run", 4)}, {"bound": RoundId("runt", 3)}, {"bound": RoundId("", 3)},
    {"kind": "test"}, {"kind": "rain", "bound": RoundId("runt", 3)}, {"members": (0, 1)},
    {"members": (0, 2, 3)}, {"members": (2,)}, {"members": ()}, {"model": b"e" * 32},
    {"integers": np.array([5, -7])}, {"integers": np.array([5, -7, 2**40, 0])},
    {"integers": np.array([5, -7, 0])}, {"integers": np.array([-7, 5, 2**40])},
    {"integers": np.array([5, -7, 2**40 + 2**32])}])
def test_a_seal_fits_nothing_else(change: dict[str, object]) -> None:
    key = SharedKey.generate(choose_parameters("plaintext", 3, 16))
    mac = vouch(key, **SEALED)  # type: ignore[arg-type]
    assert not vouched(mac, key, **{**SEALED, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("bit", range(0, 256, 17))
def test_a_seal_of_which_one_bit_differs_does_not_fit(bit: int) -> None:
    key = SharedKey.generate(choose_parameters("plaintext", 3, 16))
    mac = bytearray(vouch(key, **SEALED))  # type: ignore[arg-type]
    mac[bit // 8] ^= 1 << bit % 8
    assert not vouched(bytes(mac), key, **SEALED)  # type: ignore[arg-type]
    assert not vouched(b"", key, **SEALED)  # type: ignore[arg-type]
