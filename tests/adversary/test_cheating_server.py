"""The test plays the server: everything that it can do to ciphertexts it cannot read, as a table.

``tests/keyholder/test_hostile_server.py`` has the attacks on claims, headers and single digits.
Every cheat here reaches the decryption, is refused by a name of the table, and retires run and
key. Where two names stand, random digits decide whether a forged digit is also out of range.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from encryption.control import TAG_BITS, TAGS
from encryption.types import RoundId
from encryption.wire import HEADER_BYTES
from keyholder.keys import SharedKey
from keyholder.refusals import (
    ConstantMismatch,
    DigitOutOfRange,
    GridCheckFailed,
    KeyRetired,
    OpeningRefused,
    PartnerMapMismatch,
    TagMismatch,
)
from keyholder.sealer import Sealer
from keyholder.tags import PRIME

SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
Blocks = Sequence[bytes]


@pytest.fixture(params=SUITES)
def cohort(request: pytest.FixtureRequest, federate: Callable):
    """Three updates of three or more blocks, and their honest sum."""
    made = federate(request.param, values=2 * 12288 + 100)
    made.updates = [made.seal(made.values(i), i) for i in range(3)]
    made.total = made.add(made.updates)
    return made


def _without(made, at: int) -> Blocks:
    part = made.add(made.updates[:2])
    return (*made.total[:at], part[at], *made.total[at + 1 :])


def _twice(made, at: int) -> Blocks:
    more = made.combine([made.total, made.expand(made.updates[0])])
    return (*made.total[:at], more[at], *made.total[at + 1 :])


def _instead(made, update: Blocks) -> Blocks:
    """The sum with another update in the place of client 2's."""
    return made.add([*made.updates[:2], made.relabel(update, round=1, client=2)])


def _old(made) -> Blocks:
    return made.seal(made.values(12), 2, RoundId("5eed", 7))


def _one_old_block(made) -> Blocks:
    return _instead(made, (_old(made)[0], *made.updates[2][1:]))


def _other_key(made) -> Blocks:
    key = SharedKey.generate(made.parameters)
    values = np.ones(made.layout.values, np.int64)
    return _instead(made, Sealer(key, made.layout, 2).seal(values, RoundId("5eed", 1)))


def _random(made) -> Blocks:
    """Another seed in front of the first block, a ciphertext of nothing in particular; without a
    cipher, other small digits."""
    block, forged = made.updates[2][0], os.urandom(32)
    if made.parameters.suite == "plaintext":
        forged = np.frombuffer(forged, "<i2").astype("<i4").tobytes()
    forged = block[:HEADER_BYTES] + forged + block[HEADER_BYTES + len(forged) :]
    return _instead(made, (forged, *made.updates[2][1:]))


def _weight(made, sign: int) -> Blocks:
    """A digit's weight: in one number with it, the digit above changes by one."""
    return made.shift({5: sign * (made.parameters.max_clients << made.parameters.bits)})


def _limbs(made, first: int) -> dict[int, int]:
    bits = made.parameters.bits
    return {first + i: (PRIME >> (bits * i)) & (2**bits - 1)
            for i in range(made.layout.limbs_per_tag)}


FORGED = {TagMismatch, DigitOutOfRange}
CHEATS: dict[str, tuple[Callable, set[type[OpeningRefused]]]] = {
    "drop a block of values": (lambda made: _without(made, 1), {TagMismatch}),
    "drop the block of control values": (
        lambda made: _without(made, len(made.total) - 1), {ConstantMismatch}),
    "repeat a block of values": (lambda made: _twice(made, 1), FORGED),
    "repeat the block of control values": (
        lambda made: _twice(made, len(made.total) - 1), {ConstantMismatch}),
    "exchange two blocks": (
        lambda made: (made.relabel([made.total[1]], index=0)[0],
                      made.relabel([made.total[0]], index=1)[0], *made.total[2:]), {TagMismatch}),
    "double the sum": (
        lambda made: made.combine([made.total], [2]), {ConstantMismatch, DigitOutOfRange}),
    "replace a client by its earlier round": (lambda made: _instead(made, _old(made)),
                                              {TagMismatch}),
    "replace a block by its earlier round": (_one_old_block, {TagMismatch}),
    "count a client twice": (lambda made: _instead(made, made.updates[0]), {PartnerMapMismatch}),
    "encrypt under another key": (_other_key, {GridCheckFailed, TagMismatch}),
    "forge a ciphertext": (_random, {GridCheckFailed, *FORGED}),
    "add a digit's weight": (lambda made: _weight(made, 1), FORGED),
    "subtract a digit's weight": (lambda made: _weight(made, -1), FORGED),
    "add p over neighbouring values": (lambda made: made.shift(_limbs(made, 0)), FORGED),
    "add p over control values": (
        lambda made: made.shift(_limbs(made, made.layout.constant)),
        {ConstantMismatch, DigitOutOfRange}),
    "move a customer's worth between values": (
        lambda made: made.shift({10: 1, 20_000: -1}), {TagMismatch}),
    "add to a value and to a tag": (
        lambda made: made.shift({10: 1, made.layout.tags.start: 1}), FORGED),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_every_cheat_is_refused_by_name_and_is_the_last(cohort, cheat: str) -> None:
    make, names = CHEATS[cheat]
    if cohort.parameters.suite != "plaintext" and GridCheckFailed in names:
        names = {GridCheckFailed}
    with pytest.raises(OpeningRefused) as caught:
        cohort.open(make(cohort), (0, 1, 2))
    assert type(caught.value) in names
    for number in (1, 2):
        with pytest.raises(KeyRetired):
            cohort.open(cohort.relabel(cohort.total, round=number), (0, 1, 2),
                        RoundId("5eed", number))


@pytest.mark.parametrize("block", (0, 1, -1))
def test_the_same_block_of_two_clients_may_be_swapped(cohort, block: int) -> None:
    first, second, third = (list(update) for update in cohort.updates)
    first[block], second[block] = (cohort.relabel([second[block]], client=0)[0],
                                   cohort.relabel([first[block]], client=1)[0])
    opened = cohort.open(cohort.add([third, second, first]), (0, 1, 2))
    assert np.array_equal(opened.values, sum(cohort.values(i) for i in range(3)))


@pytest.mark.parametrize("members", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_a_client_left_out_shows_in_the_map(cohort, members: tuple[int, ...]) -> None:
    blocks = cohort.add([cohort.updates[i] for i in members])
    opened = cohort.open(blocks, members)
    assert opened.partners == members
    assert np.array_equal(opened.values, sum(cohort.values(i) for i in members))


def test_what_leaves_a_tag_as_it_is_leaves_the_sum_as_it_is(cohort) -> None:
    """p, or a carry, within a tag's own limbs: the one change that tags allow, and it is void."""
    half = 2 ** (cohort.parameters.bits - 1)
    start, carry = cohort.layout.tags.start, {}
    limbs = _sums(cohort)[start : start + cohort.layout.limbs_per_tag]
    for i, (low, high) in enumerate(itertools.pairwise(limbs)):
        up = 1 if low < 3 * (half - 1) - 2 * half else -1
        if -3 * half <= high - up < 3 * half - 3:
            carry = {start + i: 2 * half * up, start + i + 1: -up}
    assert carry
    opened = cohort.open(cohort.shift(carry), (0, 1, 2))
    assert np.array_equal(opened.values, sum(cohort.values(i) for i in range(3)))


def _sums(made) -> np.ndarray:
    """All digits of the honest sum, as only the key shows them."""
    from keyholder.ciphers import make_cipher

    cipher = make_cipher(made.key, made.parameters)
    sizes = made.layout.block_values
    return cipher.decrypt(cipher.parse(made.total, sizes, 1), sizes, 3)


def test_forging_resistance_is_at_least_120_bits() -> None:
    """A guess passes with probability (1/p)^3, up to the bias of coefficients below."""
    assert PRIME == 2**TAG_BITS - 1
    residue = 4  # Lucas and Lehmer: 2^n - 1 is prime if and only if this ends at zero
    for _ in range(TAG_BITS - 2):
        residue = (residue * residue - 2) % PRIME
    assert residue == 0
    # 61 bits of a stream stand for p values, of which 0 comes twice as often as the others.
    most_likely = 2 / 2**TAG_BITS
    assert -TAGS * np.log2(most_likely) >= 120


@pytest.mark.parametrize("change", [(1, 0), (0, 1), (1, 1), (2, 3), (4, 4), (0, 3)])
def test_over_all_keys_every_guess_passes_equally_rarely(change: tuple[int, int]) -> None:
    """The tags' definition with p = 5, over all coefficients: a change of the digits moves the
    three tags by each of the 125 possible amounts for exactly one key in 125."""
    p, passed = 5, np.zeros((5, 5, 5), int)
    for key in itertools.product(range(p), repeat=len(change) + TAGS - 1):
        passed[tuple(sum(r * d for r, d in zip(key[tag:], change, strict=False)) % p
                     for tag in range(TAGS))] += 1
    assert np.all(passed == p ** (len(change) + TAGS - 1) // p**TAGS)


def test_shifted_coefficients_are_what_the_real_tags_use(cohort) -> None:
    """One digit alone shows its coefficient: place j of tag k is place j + k of tag 0."""
    from keyholder.tags import tags

    def coefficient(place: int) -> tuple[int, ...]:
        digits = np.zeros(10, np.int64)
        digits[place] = 1
        return tags(digits, cohort.key, RoundId("5eed", 1))

    found = [coefficient(place) for place in range(5)]
    assert found[0][1:] == found[1][:2] and found[0][2] == found[2][0]
    assert len({one[0] for one in found}) == 5
