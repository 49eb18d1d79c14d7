"""Bytes of version 2 stay what they are, and no bytes do worse than be refused."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encryption.accumulator import digest, make_accumulator
from encryption.ciphertext import MemoryFile, load_sum
from encryption.control import ControlLayout
from encryption.parameters import CKKSParameters, choose_parameters
from encryption.types import OpeningClaim, Parameters, Refused, RoundId
from encryption.wire import (
    HEADER_BYTES,
    Kind,
    Place,
    frame,
    pack_bits,
    packed_bytes,
    unpack_bits,
)
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer
from keyholder.tags import tags

VECTORS = Path(__file__).parents[1] / "vectors"
SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
ROUND, VALUES = RoundId("5eed", 7), 300


def _values(partner: int) -> np.ndarray:
    return (np.arange(VALUES, dtype=np.int64) * 7919 + 104729 * partner) % 65536 - 32768


@pytest.mark.parametrize("suite", SUITES)
def test_frozen_vectors(suite: str, tmp_path: Path) -> None:
    parameters = choose_parameters(suite, 6, 16)
    layout = ControlLayout(VALUES, 6, parameters)
    known = json.loads((VECTORS / f"{suite}.json").read_text())
    path = Path(shutil.copy(VECTORS / f"{suite}.key", tmp_path))
    path.chmod(0o600)  # a checkout's files are readable by all
    key = SharedKey.load(path)
    assert parameters.fingerprint == known["fingerprint"] == key.fingerprint
    assert key.key_id == known["key_id"]
    assert list(tags(_values(0), key, ROUND)) == known["tags_of_values_0"]
    accumulator = make_accumulator(layout)
    for partner in (0, 1):
        block = (VECTORS / f"{suite}.{partner}.bin").read_bytes()
        accumulator.fold((block,))
    total = accumulator.finish()
    assert digest(total).hex() == known["digest_of_sum"]
    opener = SumOpener(key, layout, OpeningGuard(tmp_path), 2)
    opened = opener.open(OpeningClaim(ROUND, (0, 1), digest(total)), total)
    assert np.array_equal(opened.values, _values(0) + _values(1))


def test_the_header_byte_by_byte() -> None:
    parameters = choose_parameters("shared_key_rlwe", 6, 16)
    made = frame(parameters, Place(Kind.SUM, 7, 5, 3, 258), b"body")
    assert made[:8] == b"VEIL\x02\x02\x02\x00"
    assert made[8:24].hex() == parameters.fingerprint[:32]
    assert made[24:40] == bytes((7, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0))
    assert made[40:72] == hashlib.sha256(made[:40] + b"body").digest()
    assert made[72:] == b"body" and HEADER_BYTES == 72


def _slowly_packed(numbers: list[int], bits: int) -> bytes:
    """The documented planes, one bit after the other."""
    made, shift = b"", 0
    for width in (64, 32, 16, 8, 4, 2, 1):
        if not bits & width:
            continue
        parts = [(number >> shift) & (2**width - 1) for number in numbers]
        shift += width
        if width >= 8:
            made += b"".join(part.to_bytes(width // 8, "little") for part in parts)
        else:
            size = len(numbers) * width // 8
            made += bytes(sum(parts[k * size + j] << (k * width) for k in range(8 // width))
                          for j in range(size))
    return made


@pytest.mark.parametrize("bits", (*range(1, 18), 31, 32, 33, 40, 48, 50, 52, 57, 60, 63, 64))
def test_numbers_survive_and_are_packed_as_documented(bits: int) -> None:
    numbers = np.random.default_rng(bits).integers(0, 2**bits, 64, np.uint64)
    numbers[:2] = 0, 2**bits - 1
    rows = np.stack([numbers, numbers[::-1]])
    packed = pack_bits(rows, bits)
    assert [len(row) for row in packed] == [packed_bytes(64, bits)] * 2 == [8 * bits] * 2
    assert packed == [_slowly_packed(row, bits) for row in rows.tolist()]
    assert np.array_equal(unpack_bits(packed, 64, bits), rows)


def _real(suite: str) -> tuple[Parameters, ControlLayout, SharedKey, bytes, bytes]:
    parameters = choose_parameters(suite, 6, 16)
    layout = ControlLayout(VALUES, 6, parameters)
    key = SharedKey.generate(parameters)
    fresh = Sealer(key, layout, 0).seal(_values(0), ROUND)
    accumulator = make_accumulator(layout)
    accumulator.fold(fresh)
    return parameters, layout, key, fresh[0], accumulator.finish()[0]


def _mutations(block: bytes, count: int, seed: int) -> list[bytes]:
    source = random.Random(seed)
    made: list[bytes] = []
    for _ in range(count):
        changed = bytearray(block)
        kind = source.randrange(6)
        place = source.randrange(len(block)) if source.random() < 0.5 else source.randrange(40)
        if kind == 0:
            changed[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = source.randbytes(source.randrange(1, 20))
        elif kind == 3:
            width = source.choice((1, 4, 8, 64))
            changed[place : place + width] = source.choice((b"\xff", b"\0")) * width
        elif kind == 4:
            del changed[place : place + source.randrange(1, 20)]
        else:
            changed[place : place + 16] = source.randbytes(16)
        made.append(bytes(changed))
    return made


@pytest.mark.parametrize("suite", SUITES)
def test_mutated_blocks_are_folded_or_refused(suite: str) -> None:
    """Nothing but Refused, also where the digest belongs to the changed bytes, and a refused
    update leaves the sum as it was."""
    _, layout, _, fresh, total = _real(suite)
    refused = 0
    for changed in _mutations(fresh, 1000, 1):
        accumulator = make_accumulator(layout)
        accumulator.fold((fresh,))
        for block in (changed, _with_digest(changed)):
            try:
                accumulator.fold((block,))
            except Refused as error:
                refused += 1
                assert not any(character.isdigit() for character in str(error))
        if accumulator.count == 1:
            assert accumulator.finish() == (total,)
    assert refused > 1300


def _with_digest(block: bytes) -> bytes:
    return block[:40] + hashlib.sha256(block[:40] + block[72:]).digest() + block[72:]


@pytest.mark.parametrize("suite", SUITES)
def test_mutated_sums_are_opened_or_refused(suite: str, tmp_path: Path) -> None:
    """Nothing opens to other values than the untouched sum: a change that the noise hides, and
    the rounding removes, may pass. Every opening has a guard of its own: no retired key helps."""
    _, layout, key, _, total = _real(suite)
    passed = 0
    for number, changed in enumerate(_mutations(total, 250, 2)):
        opener = SumOpener(key, layout, OpeningGuard(tmp_path / str(number)), 1)
        if changed == total:
            continue
        with pytest.raises(Refused):
            opener.open(OpeningClaim(ROUND, (0,), digest((changed,))), (changed,))
        changed = _with_digest(changed)
        if changed == total:
            continue
        try:
            opened = opener.open(OpeningClaim(ROUND, (0,), digest((changed,))), (changed,))
        except Refused:
            continue
        passed += 1
        assert np.array_equal(opened.values, _values(0))
    assert passed < 50


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(SUITES))
def test_arbitrary_bytes_are_refused(block: bytes, suite: str) -> None:
    layout = ControlLayout(VALUES, 6, choose_parameters(suite, 6, 16))
    with pytest.raises(Refused):
        make_accumulator(layout).fold((block,))


@pytest.mark.parametrize("other", (None, "text", 7, bytearray(4), memoryview(b"1234")))
def test_what_is_not_bytes_is_refused(other: object) -> None:
    for suite in SUITES:
        with pytest.raises(Refused, match="not bytes"):
            layout = ControlLayout(VALUES, 6, choose_parameters(suite, 6, 16))
            make_accumulator(layout).fold((other,))  # type: ignore[arg-type]


def test_a_residue_must_lie_below_the_prime() -> None:
    parameters = CKKSParameters.for_cohort(6, 16)
    words = np.zeros(parameters.ring_degree, np.uint64)
    place = Place.of_sum(Kind.SUM, 1, 0, 1)
    for largest, fits in ((parameters.prime - 1, True), (parameters.prime, False)):
        words[17] = largest
        block = frame(parameters, place, *pack_bits(np.stack([words] * 2), parameters.prime_bits))
        with MemoryFile() as file:
            if fits:
                load_sum(block, parameters, 0, 1, file)
            else:
                with pytest.raises(Refused, match="residue"):
                    load_sum(block, parameters, 0, 1, file)


FIELDS: dict[str, Callable[[bytes], bytes]] = {
    "magic": lambda b: b"VEIM" + b[4:],
    "format version": lambda b: b[:4] + b"\x01" + b[5:],
    "kind": lambda b: b[:5] + b"\x02" + b[6:],
    "suite": lambda b: b[:7] + b"\x01" + b[8:],
    "parameter fingerprint": lambda b: b[:8] + bytes(16) + b[24:],
    "client": lambda b: b[:28] + b"\xff" * 4 + b[32:],
    "place in its update": lambda b: b[:32] + b"\x01" + b[33:],
    "damaged": lambda b: b[:-1] + bytes((b[-1] ^ 1,)),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("suite", SUITES)
def test_each_field_is_refused_by_name(suite: str, field: str) -> None:
    _, layout, _, fresh, _ = _real(suite)
    with pytest.raises(Refused, match=field):
        make_accumulator(layout).fold((FIELDS[field](fresh),))
