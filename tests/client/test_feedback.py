"""What integers leave over of a partner's updates is neither lost nor said twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from client.feedback import Feedback
from client.reply_store import ReplyDamaged, ReplyStore
from conf.schema import PrivacyConfig
from encryption.types import RoundId
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums, Region

SIZE = 64


def update_region(bits: int) -> Region:
    plan = PrivacyPlan.training(
        PrivacyConfig(name="none"), rounds=10, quorum=3, bits=bits, update_size=SIZE,
        metric=MetricSums(4, 1.0, 1.0), customers_bound=100, feedback=True)
    return plan.region("update")


class Partner:
    """What a session does with an update, round after round."""

    def __init__(self, folder: Path, bits: int = 4, run: str = "run") -> None:
        self.folder, self.run, self.region = folder, run, update_region(bits)

    def send(self, number: int, update: NDArray[np.float64]) -> NDArray[np.float64]:
        """In units of the sum. Every call starts anew from disk."""
        feedback = Feedback(ReplyStore(self.folder), self.region)
        round_id = RoundId(self.run, number)
        joined = feedback.joined(round_id, update)
        sent = self.region.quantise(joined, NoiseSource())
        feedback.keep(round_id, joined, sent)
        return sent * self.region.step

    def left(self, after: int) -> NDArray[np.float64]:
        """What would be added to an update of zeros."""
        feedback = Feedback(ReplyStore(self.folder), self.region)
        return feedback.joined(RoundId(self.run, after + 1), np.zeros(SIZE))


@settings(max_examples=50, deadline=None)
@given(arrays(np.int64, (6, SIZE), elements=st.integers(-2**28, 2**28)),
       st.sampled_from([4, 6, 8, 16]))
def test_sent_and_left_over_are_the_updates_exactly(
        tmp_path_factory: pytest.TempPathFactory, units: NDArray[np.int64], bits: int) -> None:
    """Up to ten times the range: updates in multiples of 2^-20, so that every sum is exact."""
    partner = Partner(tmp_path_factory.mktemp("site"), bits)
    updates = units * 2.0 ** -20
    sent = [partner.send(number, update) for number, update in enumerate(updates, start=1)]
    assert np.array_equal(np.sum(sent, axis=0) + partner.left(6), updates.sum(axis=0))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (8, SIZE), elements=st.floats(-1, 1)))
def test_what_fits_the_range_leaves_half_a_step_at_most(
        tmp_path_factory: pytest.TempPathFactory, parts: NDArray[np.float64]) -> None:
    """By induction: the range and half a step, rounded into the range, leave half a step."""
    partner = Partner(tmp_path_factory.mktemp("site"))
    for number, update in enumerate(parts * partner.region.clamp, start=1):
        partner.send(number, update)
        assert np.abs(partner.left(number)).max() <= partner.region.step / 2 * (1 + 1e-12)


def test_what_is_too_small_for_a_step_arrives_in_time(tmp_path: Path) -> None:
    partner = Partner(tmp_path)
    small = np.full(SIZE, 0.11 * partner.region.step)
    assert not partner.region.quantise(small, NoiseSource()).any()  # never, without feedback
    sent = np.sum([partner.send(number, small) for number in range(1, 101)], axis=0)
    assert np.abs(sent - 100 * small).max() <= partner.region.step / 2


def test_what_passes_the_range_arrives_in_time(tmp_path: Path) -> None:
    partner = Partner(tmp_path)
    first = np.zeros(SIZE)
    first[3] = 4 * partner.region.clamp
    sent = sum(partner.send(number, first if number == 1 else np.zeros(SIZE))
               for number in range(1, 7))
    assert abs(sent[3] - first[3]) <= partner.region.step / 2


def test_a_round_computed_again_starts_from_the_one_before(tmp_path: Path) -> None:
    """The site stopped after it kept what was left over, before its reply was stored."""
    updates = np.random.default_rng(0).normal(0, 1, (3, SIZE))
    partner = Partner(tmp_path / "stopped")
    twice = [partner.send(number, updates[number - 1]) for number in (1, 2, 2, 3)]
    partner = Partner(tmp_path / "never")
    once = [partner.send(number, updates[number - 1]) for number in (1, 2, 3)]
    assert np.array_equal(twice[1], twice[2])
    assert np.array_equal([twice[0], *twice[2:]], once)


def test_a_round_left_out_and_another_run(tmp_path: Path) -> None:
    update = np.full(SIZE, 0.4 * update_region(4).step)
    partner = Partner(tmp_path)
    partner.send(1, update)
    assert np.array_equal(partner.left(4), update)
    assert not Partner(tmp_path, run="other").left(4).any()
    assert not partner.left(0).any()  # nothing of a later round


def test_values_that_are_no_numbers_leave_nothing(tmp_path: Path) -> None:
    partner = Partner(tmp_path)
    update = np.zeros(SIZE)
    update[:3] = np.nan, np.inf, -np.inf
    assert np.isfinite(partner.send(1, update)).all()
    assert not partner.left(1).any()


def test_damage_is_refused(tmp_path: Path) -> None:
    partner = Partner(tmp_path)
    partner.send(1, np.ones(SIZE))
    (path,) = tmp_path.rglob("*.blocks")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReplyDamaged):
        partner.left(1)
