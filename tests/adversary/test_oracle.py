"""An opener that refuses is an oracle; one that refuses once is not.

The attack: add the allowed distance from the grid to one coefficient of an honest sum. Whether the
sum then opens tells the sign of that coefficient's noise, and with all signs, over many sums, noise
no longer hides the key. Measured here against an opener without memory; against the real one
the first refusal is the last answer, over restarts, in every process, for every run of that key.

What is left in R openings of a run: the place of the first refusal and its name. A server's whole
decision tree has at most 1 + 6 R leaves (``test_the_names_of_refusals_are_few``), log2(1 + 6 R)
bits, about ten for a hundred rounds.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.site_folder import NeverAnswered
from encryption import rlwe
from encryption.accumulator import digest
from encryption.types import OpeningClaim, Refused, RoundId
from keyholder import refusals
from keyholder.guard import OpeningGuard
from keyholder.opening import SumOpener
from keyholder.refusals import GridCheckFailed, KeyRetired, OpeningRefused
from keyholder.rlwe import RLWECipher
from tests.keyholder import forging

PARTNERS, ASKED = (0, 1, 2), 120


def _sum(made, number: int) -> tuple[bytes, ...]:
    round_id = RoundId("5eed", number)
    return made.add([made.seal(made.values(10 * number + i), i, round_id) for i in PARTNERS])


def _pushed(made, total: tuple[bytes, ...], place: int) -> tuple[bytes, ...]:
    """The sum with one coefficient moved to the edge of what is accepted."""
    parameters = made.parameters
    c0, c1 = forging.rlwe_words(parameters, total[0])
    c0[place] += np.uint64(_edge(made)[0])
    block = forging._rlwe_block(parameters, c0, c1, forging.place_of(total[0]))
    return (block, *total[1:])


def _edge(made) -> tuple[int, float]:
    """What is added, a multiple of the lowest bit on the wire, and what noise it then takes to
    be refused."""
    allowed = made.parameters.grid_bound(len(PARTNERS)) * made.parameters.step
    added = int(allowed) >> made.parameters.cut << made.parameters.cut
    return added, allowed - added


def _signs(made, total: tuple[bytes, ...]) -> np.ndarray:
    """(N,) whether the noise of each coefficient is above the edge, as only the key tells."""
    parameters = made.parameters
    c0, c1 = forging.rlwe_words(parameters, total[0])
    product = RLWECipher(made.key.cipher_key(), parameters).product(c1[np.newaxis].copy())
    phase = (c0 - product[0][: len(c0)]).view(np.int64)
    noise = (phase + parameters.step // 2) % parameters.step - parameters.step // 2
    return noise > _edge(made)[1]


def test_without_memory_refusals_give_the_noise_away(federate: Callable, tmp_path: Path) -> None:
    """Nearly every sign, from one sum: an opener that forgets is asked about each coefficient."""
    made = federate("shared_key_rlwe", values=rlwe.RING_DEGREE)
    total, right = _sum(made, 1), 0
    signs = _signs(made, total)
    for place in range(ASKED):
        made.folder = tmp_path / f"forgets-{place}"
        try:
            made.open(_pushed(made, total, place), PARTNERS)
            refused = False
        except GridCheckFailed:
            refused = True
        right += refused == signs[place]
    assert right > 0.95 * ASKED
    assert 0.1 < signs[:ASKED].mean() < 0.9  # answering "no" every time would not do


def test_with_memory_the_first_refusal_is_the_last_answer(federate: Callable) -> None:
    made = federate("shared_key_rlwe", values=rlwe.RING_DEGREE)
    answers = []
    for number in range(1, 1 + ASKED):
        try:
            made.open(_pushed(made, _sum(made, number), number), PARTNERS, RoundId("5eed", number))
            answers.append("opened")
        except OpeningRefused as error:
            answers.append(type(error).__name__)
    first = answers.index("GridCheckFailed")
    assert answers[:first] == ["opened"] * first
    assert answers[first + 1 :] == ["KeyRetired"] * (ASKED - first - 1)
    assert first < 40  # each asks for one sign: two to the minus forty that all said "opened"


OPEN_ELSEWHERE = """
import pickle, sys
from pathlib import Path
from encryption.accumulator import digest
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import OpeningClaim, RoundId
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
folder, run, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
blocks = pickle.loads((folder / "blocks").read_bytes())
parameters = choose_parameters("shared_key_rlwe", 6, 16)
layout = ControlLayout(100, 6, parameters)
opener = SumOpener(SharedKey.load(folder / "key"), layout, OpeningGuard(folder / "guard"), 1)
try:
    opener.open(OpeningClaim(RoundId(run, number), (0, 1, 2), digest(blocks)), blocks)
    print("opened")
except Exception as error:
    print(type(error).__name__)
"""


def _in_another_process(folder: Path, blocks: tuple[bytes, ...], run: str, number: int) -> str:
    import pickle

    (folder / "blocks").write_bytes(pickle.dumps(blocks))
    done = subprocess.run([sys.executable, "-c", OPEN_ELSEWHERE, str(folder), run, str(number)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_claims_and_retirement_hold_in_every_process(federate: Callable, tmp_path: Path) -> None:
    made = federate("shared_key_rlwe")
    made.key.save(tmp_path / "key")
    first, second = _sum(made, 1), _sum(made, 2)
    assert _in_another_process(tmp_path, first, "5eed", 1) == "opened"
    assert _in_another_process(tmp_path, _sum(made, 1), "5eed", 1) == "AnotherSumClaimed"
    assert _in_another_process(tmp_path, first, "5eed", 1) == "opened"
    made.total = second
    assert _in_another_process(
        tmp_path, made.shift({}, off_grid=0.4999), "5eed", 2) == "GridCheckFailed"
    for run, number in (("5eed", 2), ("5eed", 3), ("another", 1)):
        blocks = made.relabel(second, round=number)
        assert _in_another_process(tmp_path, blocks, run, number) == "KeyRetired"
        with pytest.raises(KeyRetired):
            made.open(blocks, PARTNERS, RoundId(run, number))


@pytest.mark.parametrize("error", (RuntimeError, ValueError, MemoryError, ZeroDivisionError))
def test_whatever_fails_after_the_key_was_used_retires_it(
        federate: Callable, monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """An unforeseen exception may depend on the key as much as a check does."""
    made = federate("shared_key_rlwe")
    total = _sum(made, 1)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(SumOpener, "_check_ranges", fail)
        with pytest.raises(error):
            made.open(total, PARTNERS)
    with pytest.raises(KeyRetired):
        made.open(total, PARTNERS)


def test_only_integers_leave(federate: Callable) -> None:
    for suite in ("shared_key", "shared_key_rlwe", "plaintext"):
        made = federate(suite, name=suite)
        opened = made.open(_sum(made, 1), PARTNERS)
        assert opened.values.dtype == np.int64 and opened.values.base is None
        assert opened.values.shape == (made.layout.values,)  # no constant, map, tag or zero
        assert set(vars(opened)) == {"values", "partners"}
        stored = [path for path in (made.folder / "answers").rglob("*") if path.is_file()]
        integers = opened.values.astype("<i8").tobytes()
        assert [path.read_bytes() for path in stored] == [
            hashlib.sha256(integers).digest() + integers]


def test_the_names_of_refusals_are_few() -> None:
    """After the key was used: these five, or an unforeseen exception."""
    after = {refusals.GridCheckFailed, refusals.DigitOutOfRange, refusals.ConstantMismatch,
             refusals.PartnerMapMismatch, refusals.TagMismatch}
    before = {refusals.AnotherSumClaimed, refusals.KeyRetired, refusals.QuorumNotMet,
              refusals.DigestMismatch, refusals.AnotherSetOnThisModel, NeverAnswered}
    assert set(OpeningRefused.__subclasses__()) == after | before


def test_what_is_refused_before_the_key_is_used_costs_nothing(federate: Callable) -> None:
    """No one may retire a federation's key with a truncated message."""
    made = federate("shared_key_rlwe")
    total = _sum(made, 1)
    opener = SumOpener(made.key, made.layout, OpeningGuard(made.folder), 2)
    good = OpeningClaim(RoundId("5eed", 1), PARTNERS, digest(total))
    for claim, blocks in (
            (good, ()), (good, (total[0][:-1],)), (good, (total[0] + b"x",)),
            (good, (bytes(len(total[0])),)), (good, (b"",)),
            (OpeningClaim(RoundId("5eed", 2), PARTNERS, digest(total)), total),
            (OpeningClaim(RoundId("5eed", 1), PARTNERS, bytes(32)), total),
            (OpeningClaim(RoundId("5eed", 1), (0,), digest(total)), total),
            (OpeningClaim(RoundId("5eed", 1), (0, 1, 99), digest(total)), total)):
        with pytest.raises(Refused):
            opener.open(claim, blocks)
    assert opener.open(good, total).partners == PARTNERS
