"""Known epsilons, two accountants and a closed form; calibration never overshoots."""

import json
import math

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from privacy.accounting import (
    UnsupportedEvent,
    calibrate_sampled,
    event_from_json,
    event_json,
    event_mu_squared,
    gaussian_epsilon,
    gaussian_mu,
    pld_epsilon,
    rdp_epsilon,
    round_down,
    round_up,
    sampled_epsilon,
)

DELTA = 1e-5


def sampled(noise: float, rate: float) -> dp.DpEvent:
    return dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))


def balle_wang_delta(mu: float, epsilon: float) -> float:
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_the_gaussian_epsilon_is_the_closed_form_and_agrees_with_pld(mu: float) -> None:
    epsilon = gaussian_epsilon(mu, DELTA)
    assert balle_wang_delta(mu, epsilon) == pytest.approx(DELTA, rel=1e-4)
    event = dp.SelfComposedDpEvent(dp.GaussianDpEvent(2 / mu), 4)
    assert pld_epsilon(event, DELTA) == pytest.approx(epsilon, rel=2e-3)
    assert epsilon < rdp_epsilon(event, DELTA) < 1.2 * epsilon + 0.1


def test_known_values() -> None:
    # T = 100 rounds at epsilon 3 and 8: noise multipliers measured by another implementation.
    assert 10 / gaussian_mu(3.0, DELTA) == pytest.approx(13.91, abs=0.01)
    assert 10 / gaussian_mu(8.0, DELTA) == pytest.approx(6.00, abs=0.01)
    event = dp.SelfComposedDpEvent(sampled(1.0, 0.1), 500)
    assert pld_epsilon(event, DELTA) == pytest.approx(16.56, abs=0.01)
    assert rdp_epsilon(event, DELTA) == pytest.approx(18.16, abs=0.05)


def test_extremes() -> None:
    assert gaussian_epsilon(0.0, DELTA) == 0.0
    assert gaussian_epsilon(1e-9, DELTA) == 0.0
    assert gaussian_epsilon(math.inf, DELTA) == math.inf
    assert 1000 < gaussian_epsilon(50.0, DELTA) < 2000


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 100), st.floats(-12, -2.5))
def test_calibration_never_overshoots_and_wastes_little(epsilon: float, log_delta: float) -> None:
    delta = 10 ** log_delta
    reached = gaussian_epsilon(gaussian_mu(epsilon, delta), delta)
    assert epsilon * (1 - 1e-4) <= reached <= epsilon * (1 + 2e-9)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_sampled_calibration_never_overshoots(epsilon: float) -> None:
    metrics = 0.1 * gaussian_mu(epsilon, DELTA) ** 2 / 20
    noise = calibrate_sampled(epsilon, DELTA, 0.1, 5, metrics, metrics, 20)
    spent = sampled_epsilon(0.1, noise, 5, metrics, metrics, 20, DELTA)
    assert 0.99 * epsilon < spent <= epsilon
    one = dp.ComposedDpEvent([dp.SelfComposedDpEvent(sampled(noise, 0.1), 5),
                              dp.GaussianDpEvent(metrics ** -0.5)])
    whole = dp.ComposedDpEvent([dp.SelfComposedDpEvent(one, 20),
                                dp.GaussianDpEvent(metrics ** -0.5)])
    assert pld_epsilon(whole, DELTA) == pytest.approx(spent, rel=2e-3)
    assert spent < rdp_epsilon(whole, DELTA) < 1.25 * spent


@given(st.floats(1e-12, 1e12))
def test_rounding_to_digits_keeps_its_side(value: float) -> None:
    assert value * (1 - 2e-3) <= round_down(value, 4) <= value * (1 + 1e-15)
    assert value * (1 - 1e-15) <= round_up(value, 4) <= value * (1 + 2e-3)


def test_events_survive_json_and_say_what_they_are() -> None:
    event = dp.ComposedDpEvent([
        dp.SelfComposedDpEvent(sampled(1.5, 0.25), 3), dp.GaussianDpEvent(2.0),
        dp.NoOpDpEvent(), dp.NonPrivateDpEvent()])
    text = event_json(event)
    assert event_from_json(text) == event
    assert event_json(event_from_json(text)) == text
    assert json.loads(text)["kind"] == "all"


def test_only_gaussians_have_a_mu() -> None:
    gaussian = dp.SelfComposedDpEvent(dp.GaussianDpEvent(2.0), 8)
    assert event_mu_squared(gaussian) == 2.0
    assert event_mu_squared(dp.ComposedDpEvent([gaussian, dp.NoOpDpEvent()])) == 2.0
    assert event_mu_squared(dp.ComposedDpEvent([gaussian, sampled(1.0, 0.5)])) is None
    assert event_mu_squared(dp.NonPrivateDpEvent()) is None
    assert event_mu_squared(dp.GaussianDpEvent(0.0)) == math.inf


def test_unknown_events_are_refused() -> None:
    with pytest.raises(UnsupportedEvent, match="Laplace"):
        event_json(dp.LaplaceDpEvent(1.0))
    with pytest.raises(UnsupportedEvent):
        event_from_json('{"kind": "laplace"}')
