"""From noise to (epsilon, delta) and back: closed form for Gaussians, PLD and RDP for the rest.

Everything here is for add-or-remove-one customer. ``mu`` is the parameter of Gaussian
differential privacy (arXiv 1905.02383): sensitivity / noise std. Gaussian releases compose to
mu^2 = sum of mu_i^2, also when each is chosen after seeing the earlier ones (arXiv 2210.17520).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import dp_accounting as dp
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from scipy.special import log_ndtr

UNIT = "one customer: all records of one household or shopper at one partner"
RELATION = "add or remove one customer"

RDP_ORDERS: tuple[float, ...] = (
    *(x / 8 for x in range(14, 88)), *map(float, range(11, 64)), 72, 96, 128, 256, 512, 1024)
"""From 1.75: below, the series for sampled Gaussians often fails to converge, and only epsilons
far above 20 would gain."""
_PLD_INTERVAL = 1e-3
_BISECTIONS = 100
_DEEPEST_EVENT = 8
_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e30
_LEAST_RATE, _MOST_COUNT = 1e-9, 10**9


class UnsupportedEvent(ValueError):
    """An event that none of the accountants here composes."""


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """Natural log of the smallest delta at which mu-GDP gives epsilon.

    Source: Balle and Wang, arXiv 1805.06530, theorem 8; exact, both directions.
    """
    above = log_ndtr(mu / 2 - epsilon / mu)
    below = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
    return float(above + math.log(-math.expm1(min(below - above, -1e-300))))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon of mu-GDP at delta, rounded up by at most 1e-9 relative."""
    if mu <= 0:
        return 0.0
    if math.isinf(mu):
        return math.inf
    target = math.log(delta)
    if gaussian_log_delta(mu, 0.0) <= target:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_log_delta(mu, high) > target:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_log_delta(mu, middle) > target else (low, middle)
        if high - low <= 1e-9 * high:
            break
    return high


@lru_cache(maxsize=256)
def gaussian_mu(epsilon: float, delta: float) -> float:
    """Largest mu whose epsilon at delta does not exceed ``epsilon``, cut to 7 digits downwards
    so that two machines with different libm agree on it."""
    target = math.log(delta)
    low, high = 0.0, 1.0
    while gaussian_log_delta(high, epsilon) < target:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = gaussian_log_delta(middle, epsilon) > target
        low, high = (low, middle) if above else (middle, high)
    return round_down(low)


def round_down(value: float, digits: int = 7) -> float:
    """The largest number of ``digits`` significant decimal digits not above ``value`` > 0."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value)))
    return math.floor(value * scale) / scale


def round_up(value: float, digits: int = 7) -> float:
    """The smallest number of ``digits`` significant decimal digits not below ``value`` > 0."""
    scale = 10.0 ** (digits - 1 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale


def pld_epsilon(event: dp.DpEvent, delta: float) -> float:
    """Epsilon by dp-accounting's privacy loss distributions (pessimistic, tight)."""
    accountant = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, _PLD_INTERVAL)
    return float(accountant.compose(event).get_epsilon(delta))


def rdp_epsilon(event: dp.DpEvent, delta: float) -> float:
    """Epsilon by Renyi accounting (upper bound, 6 to 13% above PLD)."""
    return rdp_to_epsilon(event_rdp(event_json(event)), delta)


@lru_cache(maxsize=1024)
def event_rdp(text: str) -> tuple[float, ...]:
    """Renyi divergences of the event (its JSON) at ``RDP_ORDERS``."""
    accountant = RdpAccountant(list(RDP_ORDERS), dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(event_from_json(text))
    return tuple(float(value) for value in accountant._rdp)


def rdp_to_epsilon(divergences: tuple[float, ...], delta: float) -> float:
    """Source: Canonne, Kamath, Steinke, arXiv 2004.00010, proposition 12."""
    best = math.inf
    for order, divergence in zip(RDP_ORDERS, divergences, strict=True):
        epsilon = (divergence + math.log1p(-1 / order)
                   - (math.log(delta) + math.log(order)) / (order - 1))
        best = min(best, epsilon)
    return max(best, 0.0)


def epsilon_with_failures(epsilon: Callable[[float], float], delta: float,
                          failure: float) -> float:
    """Epsilon at ``delta`` of mechanisms that are what ``epsilon(delta)`` accounts but for an event
    of probability ``failure``; infinity where nothing is found.

    Let M be what runs and M' what is accounted; for each input the two can be drawn together such
    that they differ with probability at most F. Then for neighbours D, D' and every set A

        P[M(D) in A] <= P[M'(D) in A] + F <= e^eps P[M'(D') in A] + d + F
                     <= e^eps P[M(D') in A] + d + (1 + e^eps) F,

    so M is (eps, d + (1 + e^eps) F)-private. Guarantee: for the returned eps,
    epsilon(delta - (1 + e^eps) F) <= eps. Found from below, where each step is a lower bound of
    the next: ``epsilon`` grows as its delta shrinks.
    """
    found = epsilon(delta)
    for _ in range(_BISECTIONS):
        left = delta - failure * (1 + math.exp(min(found, 700.0)))
        if left <= 0 or math.isinf(found):
            return math.inf
        needed = epsilon(left)
        if needed <= found:
            return found
        found = needed * (1 + 2e-9)  # more than what ``gaussian_epsilon`` rounds up by
    return math.inf


@lru_cache(maxsize=8)
def _round_pld(sample_rate: float, noise_multiplier: float, steps: int,
               mu_squared: float) -> pld.PrivacyLossDistribution:
    sampled = pld.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sample_rate, value_discretization_interval=_PLD_INTERVAL)
    return sampled.self_compose(steps).compose(_gaussian_pld(mu_squared))


def _gaussian_pld(mu_squared: float) -> pld.PrivacyLossDistribution:
    if mu_squared <= 0:
        return pld.identity(_PLD_INTERVAL)
    return pld.from_gaussian_mechanism(
        1 / math.sqrt(mu_squared), value_discretization_interval=_PLD_INTERVAL)


@lru_cache(maxsize=4096)
def sampled_epsilon(sample_rate: float, noise_multiplier: float, steps: int, mu_squared: float,
                    mu_squared_once: float, rounds: int, delta: float) -> float:
    """Epsilon of ``rounds`` x (``steps`` Poisson-sampled Gaussians + one of mu^2) + one of
    ``mu_squared_once``: by PLD, 10 to 60 ms for each new number of rounds; exact at rate 1."""
    if rounds == 0:
        return 0.0
    if sample_rate == 1:
        each = steps / noise_multiplier ** 2 + mu_squared
        return gaussian_epsilon(math.sqrt(rounds * each + mu_squared_once), delta)
    one = _round_pld(sample_rate, noise_multiplier, steps, mu_squared)
    total = one.self_compose(rounds) if rounds > 1 else one
    if mu_squared_once > 0:
        total = total.compose(_gaussian_pld(mu_squared_once))
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=32)
def calibrate_sampled(epsilon: float, delta: float, sample_rate: float, steps: int,
                      mu_squared: float, mu_squared_once: float, rounds: int) -> float:
    """Smallest noise multiplier (4 digits, rounded up) of the Poisson-sampled steps at which
    :func:`sampled_epsilon` does not exceed ``epsilon``. Raises ValueError if none up to 10^4."""

    def spent(noise_multiplier: float) -> float:
        return sampled_epsilon(sample_rate, noise_multiplier, steps, mu_squared,
                               mu_squared_once, rounds, delta)

    low, high = 0.3, 0.6
    while spent(high) > epsilon:
        low, high = high, 2 * high
        if high > 1e4:
            raise ValueError("no noise multiplier up to 10^4 reaches this epsilon")
    while high - low > 2e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    return round_up(high, 4)


def event_mu_squared(event: dp.DpEvent) -> float | None:
    """Sum of mu^2 if the event consists of Gaussian releases only, else None."""
    match event:
        case dp.NoOpDpEvent():
            return 0.0
        case dp.GaussianDpEvent(noise_multiplier=noise):
            return math.inf if noise == 0 else noise ** -2
        case dp.PoissonSampledDpEvent(sampling_probability=1, event=inner):
            return event_mu_squared(inner)
        case dp.SelfComposedDpEvent(event=inner, count=count):
            part = event_mu_squared(inner)
            return None if part is None else count * part
        case dp.ComposedDpEvent(events=events):
            parts = [event_mu_squared(inner) for inner in events]
            return None if None in parts else math.fsum(p for p in parts if p is not None)
    return None


def event_json(event: dp.DpEvent) -> str:
    """Canonical JSON of an event: the same event gives the same text. Plain numbers only."""
    return json.dumps(_encode(event), sort_keys=True, separators=(",", ":"))


def _encode(event: dp.DpEvent) -> dict[str, Any]:
    match event:
        case dp.NoOpDpEvent():
            return {"kind": "nothing"}
        case dp.NonPrivateDpEvent():
            return {"kind": "not_private"}
        case dp.GaussianDpEvent(noise_multiplier=noise):
            return {"kind": "gaussian", "noise_multiplier": float(noise)}
        case dp.PoissonSampledDpEvent(sampling_probability=rate, event=inner):
            return {"kind": "poisson_sampled", "rate": float(rate), "of": _encode(inner)}
        case dp.SelfComposedDpEvent(event=inner, count=count):
            return {"kind": "repeated", "count": int(count), "of": _encode(inner)}
        case dp.ComposedDpEvent(events=events):
            return {"kind": "all", "of": [_encode(inner) for inner in events]}
    raise UnsupportedEvent(f"cannot account {type(event).__name__}")


def event_from_json(text: str) -> dp.DpEvent:
    """Inverse of :func:`event_json`. Raises UnsupportedEvent for any other text."""
    try:
        event = _decode(json.loads(text), 0)
        if event_json(event) == text:
            return event
    except (ValueError, RecursionError):
        pass
    raise UnsupportedEvent("this is not an event that can be accounted")


def _decode(value: object, depth: int) -> dp.DpEvent:
    if depth > _DEEPEST_EVENT:
        raise UnsupportedEvent("events within events")
    match value:
        case {"kind": "nothing"}:
            return dp.NoOpDpEvent()
        case {"kind": "not_private"}:
            return dp.NonPrivateDpEvent()
        case {"kind": "gaussian", "noise_multiplier": float(noise)} if noise == 0 or (
                _LEAST_NOISE <= noise <= _MOST_NOISE):
            return dp.GaussianDpEvent(noise)
        case {"kind": "poisson_sampled", "rate": float(rate),
              "of": {"kind": "gaussian"} as inner} if _LEAST_RATE <= rate <= 1:
            return dp.PoissonSampledDpEvent(rate, _decode(inner, depth + 1))
        case {"kind": "repeated", "count": int(count), "of": inner} if (
                1 <= count <= _MOST_COUNT):
            return dp.SelfComposedDpEvent(_decode(inner, depth + 1), count)
        case {"kind": "all", "of": list(events)}:
            return dp.ComposedDpEvent([_decode(inner, depth + 1) for inner in events])
    raise UnsupportedEvent("an event of another kind, or a number out of range")
