"""The plan keeps its epsilon, its grid holds what it promises, and impossible plans say why."""

import math
import time
from dataclasses import replace

import dp_accounting as dp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema import PrivacyConfig
from privacy import grid, planning
from privacy.accounting import gaussian_mu, pld_epsilon, rdp_epsilon
from privacy.grid import MAX_INFLATION, PlanImpossible
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums
from privacy.rounding import SquaredShift

RARE = 1e-9


def training(name: str = "noise_shares", *, epsilon: float = 3.0, rounds: int = 100,
             quorum: int = 6, bits: int = 16, size: int = 30, metric: int = 40,
             customers: int = 400, feedback: bool = False, **config: float) -> PrivacyPlan:
    return PrivacyPlan.training(
        PrivacyConfig(name=name, epsilon=epsilon, **config), rounds=rounds, quorum=quorum,
        bits=bits, update_size=size, metric=MetricSums(metric, 1.0, 2.0),
        customers_bound=customers, feedback=feedback)


def held_out(name: str = "noise_shares", epsilon: float = 3.0, bits: int = 16) -> PrivacyPlan:
    return PrivacyPlan.test(PrivacyConfig(name=name, epsilon=epsilon), quorum=6, bits=bits,
                            metric=MetricSums(40, 1.0, 2.0), customers_bound=100)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("name", ["noise_shares", "local_dp"])
@pytest.mark.parametrize("rounds", [1, 10, 100])
def test_the_whole_run_spends_the_epsilon_and_never_more(
        name: str, epsilon: float, rounds: int) -> None:
    plan = training(name, epsilon=epsilon, rounds=rounds, bits=17)
    assert 0.99 * epsilon < plan.epsilon(rounds) <= epsilon * (1 + 1e-8)
    event = plan.event(rounds)
    assert pld_epsilon(event, plan.delta) == pytest.approx(plan.epsilon(rounds), rel=2e-3)
    assert plan.epsilon(rounds) < rdp_epsilon(event, plan.delta) < 1.2 * epsilon + 0.1


@pytest.mark.parametrize("name", ["noise_shares", "local_dp", "none"])
def test_the_test_release_has_its_own_epsilon(name: str) -> None:
    plan = held_out(name)
    expected = math.inf if name == "none" else pytest.approx(3.0, rel=1e-3)
    assert plan.epsilon(1) == expected
    if name != "none":
        assert plan.epsilon(1) <= 3.0 * (1 + 1e-8)
        assert pld_epsilon(plan.event(1), plan.delta) == pytest.approx(plan.epsilon(1), rel=2e-3)
    assert [region.name for region in plan.regions] == ["metric_model", "metric_naive"]


def test_epsilon_grows_with_the_rounds_and_is_cheap() -> None:
    for name, budget_s in (("noise_shares", 0.2), ("local_dp", 4.0)):
        plan = training(name)
        begin = time.process_time()
        released = [plan.epsilon(rounds) for rounds in range(101)]
        leaked = [plan.epsilon_if_key_leaks(rounds) for rounds in range(101)]
        assert time.process_time() - begin < budget_s
        assert released[0] == 0 and np.all(np.diff(released) > 0)
        assert all(a <= b for a, b in zip(released, leaked, strict=True))


def test_a_leaked_key_leaves_one_share() -> None:
    plan = training(colluders=1)
    event = plan.event(100)
    # One share instead of quorum - colluders = 5: as five times the run.
    assert plan.epsilon_if_key_leaks(100) == pytest.approx(
        pld_epsilon(dp.SelfComposedDpEvent(event, 5), plan.delta), rel=5e-3)
    local = training("local_dp")
    assert local.epsilon_if_key_leaks(100) == local.epsilon(100)


def test_noise_follows_the_split_of_the_privacy_loss() -> None:
    plan = training(metrics_share=0.2)
    loss = {region.name: region.noise_multiplier ** -2 for region in plan.regions}
    total = sum(loss.values())
    assert loss["update"] / total == pytest.approx(0.8)
    assert loss["metric"] / total == pytest.approx(0.16)
    assert loss["loss"] / total == pytest.approx(0.04)


def test_more_colluders_need_more_noise_per_partner() -> None:
    one, three = training(colluders=1).region("update"), training(colluders=3).region("update")
    assert (three.share_std_steps * three.step / (one.share_std_steps * one.step)
            == pytest.approx(math.sqrt(5 / 3), rel=0.02))


@pytest.mark.parametrize("name", ["noise_shares", "local_dp", "none"])
def test_two_parties_hold_equal_plans(name: str) -> None:
    assert training(name) == training(name)
    assert hash(training(name)) == hash(training(name))
    assert training(name) != training(name, rounds=99)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.2, 20), st.integers(1, 300), st.integers(2, 20), st.integers(8, 20),
       st.integers(1, 3000), st.integers(2, 5000))
def test_every_grid_holds_clamp_and_noise(epsilon: float, rounds: int, quorum: int, bits: int,
                                          size: int, customers: int) -> None:
    try:
        plan = training(epsilon=epsilon, rounds=rounds, quorum=quorum, bits=bits, size=size,
                        customers=customers)
    except PlanImpossible as error:
        assert error.key in ("encryption.bits", "privacy.epsilon")
        return
    assert plan.epsilon(rounds) <= epsilon * (1 + 1e-8)
    for region in plan.regions:
        assert region.clamp_steps + 7 * region.share_std_steps < 2 ** (bits - 1)
        assert 1 <= region.inflation <= MAX_INFLATION
        assert region.share_std_steps >= 4
        assert region.share_std_steps * math.sqrt(plan.shares) >= 64 * (1 - 1e-9)
        assert region.clamp <= customers * region.clip_norm + region.step


@pytest.mark.parametrize(("bits", "key", "advice"), [
    (8, "encryption.bits", r"8 bits cannot hold .* region \w+ .* use encryption.bits=1\d")])
def test_too_few_bits_are_refused_with_the_number_that_would_do(
        bits: int, key: str, advice: str) -> None:
    with pytest.raises(PlanImpossible, match=advice) as caught:
        training(bits=bits)
    assert caught.value.key == key
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_suggested_bits_do_and_no_fewer(epsilon: float) -> None:
    with pytest.raises(PlanImpossible) as caught:
        training(epsilon=epsilon, size=300, bits=8)
    enough = caught.value.enough_bits
    assert enough is not None and f"encryption.bits={enough}," in str(caught.value)
    assert training(epsilon=epsilon, size=300, bits=enough).bits == enough <= 15
    with pytest.raises(PlanImpossible):
        training(epsilon=epsilon, size=300, bits=enough - 1)


@pytest.mark.parametrize("size", [30, 8000])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_rounding_and_not_the_lattice_asks_for_the_bits(
        epsilon: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def enough() -> int | None:
        with pytest.raises(PlanImpossible) as caught:
            training(epsilon=epsilon, size=size, bits=8)
        return caught.value.enough_bits

    asked = enough()
    with monkeypatch.context() as patch:
        patch.setattr(grid, "MIN_TOTAL_STD_STEPS", 1.0)
        patch.setattr(grid, "MIN_SHARE_STD_STEPS", 1.0)
        assert enough() == asked
    monkeypatch.setattr(grid, "squared_shift", lambda clip_steps, size, rounds, failure:
                        SquaredShift(clip_steps ** 2, 0.0))
    free = enough()
    assert asked is not None and free is not None and free <= asked - 2


@pytest.mark.parametrize(("part", "most"), [(8, 1), (10 ** 9, 2)])
@pytest.mark.parametrize("size", [30, 8000])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_a_range_that_fits_would_save_a_bit_at_most(
        epsilon: float, size: int, part: float, most: int,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise's tail fills it: an eighth of the worst case saves one bit, a range that holds
    nothing at all two. So no range is learnt from earlier rounds."""
    def enough() -> int:
        with pytest.raises(PlanImpossible) as caught:
            training(epsilon=epsilon, size=size, bits=8)
        assert caught.value.enough_bits is not None
        return caught.value.enough_bits

    asked = enough()
    monkeypatch.setattr(planning, "choose_grid", lambda need, bits: grid.choose_grid(
        replace(need, least_clamp=need.full_clamp / part), bits))
    assert enough() >= asked - most


def test_feedback_narrows_the_range_of_the_update_alone() -> None:
    """A coordinate's range is four times the root mean square of the longest possible sum."""
    for name in ("none", "local_dp"):
        wide, narrow = (training(name, size=400, bits=8, feedback=feedback)
                        for feedback in (False, True))
        assert wide.regions[1:] == narrow.regions[1:]
        assert narrow.region("update").step < wide.region("update").step
        assert narrow.epsilon(100) == wide.epsilon(100)
    longest = 400 * PrivacyConfig().clip_norm
    assert longest / 5 <= training("none", size=400, feedback=True).region("update").clamp
    assert training("none", size=400, feedback=True).region("update").clamp <= 1.1 * longest / 5
    assert training("none", size=16, feedback=True) == training("none", size=16)


def test_nobody_left_to_add_noise() -> None:
    with pytest.raises(PlanImpossible, match="nobody") as caught:
        training(quorum=2, colluders=2)
    assert caught.value.key == "privacy.colluders"
    training("local_dp", quorum=2, colluders=2)


def test_a_model_too_large_for_any_width() -> None:
    with pytest.raises(PlanImpossible, match="smaller model") as caught:
        training(epsilon=0.1, rounds=1000, size=10 ** 6, bits=20)
    assert caught.value.key == "privacy.epsilon"


def test_local_dp_covers_its_deltas() -> None:
    """The public range of the update holds what DP-SGD at the plan's noise makes."""
    plan = PrivacyPlan.training(
        PrivacyConfig(name="local_dp", clip_norm=2.0, local_learning_rate=0.5, local_steps=5,
                      sample_rate=0.1), rounds=100, quorum=6, bits=16, update_size=30,
        metric=MetricSums(40, 1.0, 2.0), customers_bound=400, expected_customers=800)
    weight = 400 * 6 / 800
    noise = (math.sqrt(5) * 0.5 * plan.local_noise_multiplier * 2.0 * 6 / (0.1 * 800))
    assert plan.region("update").clamp >= 5 * 0.5 * 2.0 * weight + 6 * noise
    assert plan.region("update").step < noise / 5


def test_full_participation_is_the_plain_gaussian() -> None:
    plan = training("local_dp", local_steps=1, sample_rate=1.0)
    shared = training()
    assert plan.local_noise_multiplier == pytest.approx(
        shared.region("update").noise_multiplier, rel=1e-3)
    assert plan.epsilon(100) <= 3.0


def test_the_description_is_plain_and_names_the_unit() -> None:
    described = training().describe()
    assert all(isinstance(value, float | int | str) for value in described.values())
    assert "add or remove one customer" in str(described["neighbours"])
    assert described["epsilon"] == training().epsilon(100)
    assert described["update/sensitivity_inflation"] > 1


def test_a_tampered_plan_would_be_noticed() -> None:
    """Equality covers every number: a party that weakens its noise holds another plan."""
    plan = training()
    weaker = replace(plan.regions[0], share_std_steps=plan.regions[0].share_std_steps / 6)
    assert replace(plan, regions=(weaker, *plan.regions[1:])) != plan


@pytest.mark.parametrize("name", ["noise_shares", "local_dp"])
def test_noise_over_signal_hardly_depends_on_rounds_and_falls_with_customers(name: str) -> None:
    few, many = (training(name, rounds=rounds, local_steps=1, sample_rate=1.0).noise_to_signal(
        6, 600) for rounds in (10, 100))
    assert few == pytest.approx(many, rel=0.02)
    assert training(name).noise_to_signal(6, 1200) == pytest.approx(
        training(name).noise_to_signal(6, 600) / 2)
    mu = gaussian_mu(3.0, 1e-5) * math.sqrt(0.9)
    parts = 6 / 5 if name == "noise_shares" else 6
    assert many == pytest.approx(math.sqrt(30 * parts) / (mu * 600), rel=0.02)
    assert training("none").noise_to_signal(6, 600) == 0
