"""The numbers of ``veilsum exposure`` are those that an operator would get."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema import PrivacyConfig
from privacy.exposure import (
    Looks,
    Noise,
    most_telling,
    rounds_admitted,
    runs_admitted,
    sets_of,
)
from privacy.ledger import BudgetExceeded, Ledger
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

PAIRS = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], np.bool_)  # of A, B and V


def _plan(rounds: int, quorum: int, *, size: int = 40, name: str = "noise_shares",
          epsilon: float = 3.0, customers: int = 600) -> PrivacyPlan:
    config = PrivacyConfig(name=name, epsilon=epsilon)
    return PrivacyPlan.training(config, rounds=rounds, quorum=quorum, bits=20, update_size=size,
                                metric=MetricSums(16, 2.0, 1.0), customers_bound=customers)


def _share(plan: PrivacyPlan) -> float:
    """Std of one partner's noise, in units of the sum."""
    update = plan.region("update")
    return update.share_std_steps * update.step


def _unrelated(norms: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(n, size) updates in random directions, with these norms on average."""
    return rng.normal(size=(len(norms), size)) * (norms / math.sqrt(size))[:, None]


def _opened(plan: PrivacyPlan, updates: np.ndarray, sets: np.ndarray, times: int) -> np.ndarray:
    """(k, size) mean of ``times`` opened sums of each set, every share drawn as a site does."""
    region, noise = plan.region("update"), NoiseSource()
    return np.stack([np.mean([sum(region.quantise(updates[who], noise)
                                  for who in np.flatnonzero(one)) * region.step
                              for _ in range(times)], axis=0) for one in sets])


@pytest.mark.parametrize(("sets", "quorum"), [
    (PAIRS, 2),
    (np.array([[1, 1, 1], [1, 1, 0]], np.bool_), 2),
    (np.array([[1, 1, 1]], np.bool_), 3),
])
def test_the_formula_is_what_real_noise_shares_give(sets: np.ndarray, quorum: int) -> None:
    """In 20,000 coordinates, none clamped: the error within 3%, the cosine within .035 (five
    standard deviations)."""
    size, times = 20_000, 4
    plan = _plan(60, quorum, size=size, customers=10_000)
    share = _share(plan)
    norms = math.sqrt(size) * share * np.array([1.0, 0.6, 0.8])
    assert plan.region("update").clamp > 4 * share
    updates = _unrelated(norms, size, np.random.default_rng(1))
    looks = Looks(sets, np.full(len(sets), float(times)), sets.sum(axis=1) * share ** 2)
    opened = _opened(plan, updates, sets, times)
    for partner, own in enumerate(updates):
        expected = looks.estimate(norms, size, partner)
        found = expected.weights @ opened
        error = np.linalg.norm(found - own) / norms[partner]
        assert error == pytest.approx(expected.relative_error, rel=0.03)
        if sets[:, partner].any():
            cosine = found @ own / np.linalg.norm(found) / np.linalg.norm(own)
            assert cosine == pytest.approx(expected.cosine, abs=0.035)


def test_three_pairs_show_a_partner_within_seven_percent() -> None:
    """task=retail_repeat: 60 rounds, each partner in 40, under a limit of 3; V is area_1."""
    looks = Looks(PAIRS, np.full(3, 20.0), np.full(3, 2 * _share(_plan(60, 2)) ** 2))
    found = looks.estimate(np.array([124.0, 77.2, 137.2]), 40, 2)
    assert found.relative_error == pytest.approx(0.07, abs=0.005)
    assert found.weights == pytest.approx([-0.5, 0.5, 0.5], abs=0.02)  # plain least squares


def test_all_against_all_but_one_shows_the_smallest() -> None:
    """100 rounds, half of them each; the smallest is area_6 with 77 households."""
    share = _share(_plan(100, 5))
    sets = np.array([[1] * 6, [1] * 5 + [0]], np.bool_)
    looks = Looks(sets, np.full(2, 50.0), np.array([6.0, 5.0]) * share ** 2)
    found = looks.estimate(np.array([137.2, 124.0, 77.2, 65.6, 35.6, 18.3]), 40, 5)
    assert found.cosine == pytest.approx(0.86, abs=0.005)


def test_one_set_shows_the_sum_and_nothing_else() -> None:
    """Without noise, too: whose share of all squares is s is at an error of sqrt(1 - s)."""
    norms = np.array([3.0, 2.0, 1.0])
    for noise in (0.0, 1e-9):
        looks = Looks(np.ones((1, 3), np.bool_), np.ones(1), np.full(1, noise))
        for partner, norm in enumerate(norms):
            found = looks.estimate(norms, 40, partner)
            assert found.cosine == pytest.approx(norm / math.sqrt(14), abs=1e-6)


def test_two_sets_without_noise_show_everything() -> None:
    looks = Looks(PAIRS, np.ones(3), np.zeros(3))
    assert looks.estimate(np.ones(3), 40, 2).relative_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["noise_shares", "local_dp"])
def test_the_ledger_takes_the_rounds_and_not_one_more(name: str, tmp_path: Path) -> None:
    plan = _plan(10, 4, name=name, epsilon=1.0)
    ledger = Ledger(tmp_path / "ledger.jsonl", 3.0, 1e-5)
    count = rounds_admitted(plan, 3.0, 1e-5)
    assert count > 10

    def ask(rounds: int) -> None:
        ledger.check("run", dict.fromkeys(range(1, rounds + 1), plan.round_event()),
                     start=plan.start_event(), failure=plan.failure)

    ask(count)
    with pytest.raises(BudgetExceeded):
        ask(count + 1)


def test_the_ledger_takes_the_runs_and_not_one_more(tmp_path: Path) -> None:
    plan = _plan(3, 4, epsilon=1.0)
    ledger = Ledger(tmp_path / "ledger.jsonl", 3.0, 1e-5)
    count = runs_admitted(plan, 3.0, 1e-5)
    assert count >= 4
    for run in range(count):
        for number in (1, 2, 3):
            ledger.spend(f"{run}", number, plan.round_event(), start=plan.start_event(),
                         failure=plan.failure)
    with pytest.raises(BudgetExceeded):
        ledger.check("one more", dict.fromkeys((1, 2, 3), plan.round_event()),
                     start=plan.start_event(), failure=plan.failure)


def test_no_round_without_privacy_fits_a_limit() -> None:
    plan = _plan(3, 4, name="none")
    assert rounds_admitted(plan, 100.0, 1e-5) == 0
    assert most_telling(sets_of(4, 3), Noise.of(plan, 1), 0, np.ones(4), 40, 0).cosine == 0


def test_no_other_frequencies_tell_clearly_more() -> None:
    """Random ones, within the same ledgers, against those that the search finds."""
    rng, noise = np.random.default_rng(2), Noise(50.0, 1, False)
    norms = np.array([130.0, 60.0, 40.0, 20.0])
    sets = sets_of(4, 2)
    variance = np.array([noise.variance(int(count)) for count in sets.sum(axis=1)])
    for partner in range(4):
        best = most_telling(sets, noise, 60, norms, 40, partner).relative_error
        for _ in range(300):
            times = rng.dirichlet(np.full(len(sets), 0.3)) + 1e-9
            times *= 60 / (sets.T @ times).max()  # the busiest partner's ledger is full
            other = Looks(sets, times, variance).estimate(norms, 40, partner).relative_error
            assert other > 0.97 * best


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.data())
def test_more_sets_and_more_openings_never_tell_less(partners: int, data: st.DataObject) -> None:
    sets = sets_of(partners, 2)
    norms = np.array(data.draw(st.lists(st.floats(0.1, 1e3), min_size=partners,
                                        max_size=partners)))
    chosen = data.draw(st.permutations(range(len(sets))))
    times = np.array(data.draw(st.lists(st.floats(0.5, 1e3), min_size=len(sets),
                                        max_size=len(sets))))
    errors = [Looks(sets[chosen[:count]], times[chosen[:count]], np.full(count, 9.0)).estimate(
        norms, 40, 0).relative_error for count in range(1, len(sets) + 1)]
    assert all(0 <= after <= before + 1e-6 for before, after in pairwise((1.0, *errors)))
    more = Looks(sets, 2 * times, np.full(len(sets), 9.0)).estimate(norms, 40, 0).relative_error
    assert more <= errors[-1] + 1e-6


def test_a_lower_quorum_never_tells_less() -> None:
    """And all of it lies above what a server would have that knew all other partners' updates."""
    noise, norms = Noise(50.0, 1, False), np.array([130.0, 60.0, 40.0, 20.0, 20.0])
    for partner, norm in enumerate(norms):
        errors = [most_telling(sets_of(5, least), noise, 60, norms, 40, partner).relative_error
                  for least in (5, 4, 3, 2)]
        assert all(after <= before * 1.02 for before, after in pairwise(errors))
        known = 40 * 50.0 / 60 / norm ** 2
        assert errors[-1] >= math.sqrt(known / (1 + known))


def test_beyond_ten_partners_all_and_all_but_one_are_tried() -> None:
    assert len(sets_of(12, 2)) == 13 and len(sets_of(12, 12)) == 1 and len(sets_of(6, 5)) == 7
