"""Tags are exact, linear, and bound to key, run, round and place."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import RoundId
from keyholder.keys import SharedKey
from keyholder.tags import PRIME, _stream_key, from_digits, tags, to_digits

ROUND = RoundId("5eed", 1)
PARAMETERS = choose_parameters("plaintext", 6, 16)
KEY = SharedKey.generate(PARAMETERS)


def _slowly(digits: np.ndarray) -> tuple[int, ...]:
    """The definition, in Python's integers."""
    cipher = Cipher(algorithms.AES256(_stream_key(KEY, ROUND)), modes.CTR(bytes(16)))
    stream = cipher.encryptor()
    words = [int.from_bytes(stream.update(bytes(8)), "little") & PRIME
             for _ in range(len(digits) + 2)]
    return tuple(
        sum(word * digit for word, digit in zip(words[tag:], digits.tolist(), strict=False)) % PRIME
        for tag in range(3))


@pytest.mark.parametrize("largest", (1, 2**15, 2**17, 2**17 + 1, 2**30, 2**31, 2**33 + 1, 2**48,
                                     2**60))
@pytest.mark.parametrize("size", (1, 8192, 10_000, 24 * 8192 + 5))
def test_arithmetic_is_exact(largest: int, size: int) -> None:
    random = np.random.default_rng(size)
    for digits in (random.integers(-largest, largest + 1, size), np.full(size, largest),
                   np.full(size, -largest)):
        assert tags(digits, KEY, ROUND) == _slowly(digits)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from((8, 10, 16, 20, 25, 31, 32)))
def test_the_sum_of_tags_is_the_tag_of_the_sum(seed: int, clients: int, bits: int) -> None:
    layout = ControlLayout(50, 6, choose_parameters("plaintext", 6, bits))
    half = 2 ** (bits - 1)
    updates = np.random.default_rng(seed).integers(-half, half, (clients, layout.covered))
    limbs = [to_digits(tags(update, KEY, ROUND), layout) for update in updates]
    assert all(len(one) == layout.tags.stop - layout.tags.start for one in limbs)
    assert min(one.min() for one in limbs) >= -half and max(one.max() for one in limbs) < half
    assert from_digits(np.sum(limbs, axis=0), clients, layout) == tags(
        updates.sum(axis=0), KEY, ROUND)


def test_tags_are_bound_to_key_run_round_and_place() -> None:
    digits = np.zeros(20, np.int64)
    digits[3] = 1
    seen = {tags(digits, KEY, ROUND), tags(digits, KEY, RoundId("5eed", 2)),
            tags(digits, KEY, RoundId("5eee", 1)), tags(np.roll(digits, 1), KEY, ROUND),
            tags(digits, SharedKey.generate(PARAMETERS), ROUND)}
    assert len(seen) == 5
    assert len(set(tags(digits, KEY, ROUND))) == 3
    assert tags(digits, KEY, ROUND) == tags(digits.copy(), KEY, ROUND)


def test_tags_never_leave_with_the_sum() -> None:
    from encryption.types import OpenedSum

    assert set(OpenedSum.__annotations__) == {"values", "partners"}
