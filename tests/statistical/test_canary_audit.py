"""A white-box audit: what an attacker who made the canaries can prove about epsilon.

Each canary is a customer with a gradient of its own direction (orthonormal), in or out by a coin
the attacker does not see. All canaries take part in one run. From the opened sums the attacker
guesses who was in; error rates of the guesses, with Clopper-Pearson bounds, bound the trade-off
function and so mu from below (arXiv 1905.02383). Directions are orthonormal and noise
independent by coordinate, so guesses are independent. A right mechanism crosses its claimed
epsilon once in 10^6 runs; each seeded bug crosses it.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta, norm
from torch import nn

from conf.schema import PrivacyConfig
from learning.customers import Customers
from learning.losses import CrossEntropy
from learning.training import customer_gradients
from privacy.accounting import gaussian_epsilon, gaussian_mu
from privacy.clipping import clip_and_sum
from privacy.local_dp import Sample, dp_sgd
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

CANARIES, ROUNDS, QUORUM, HONEST, EXAMPLES = 8000, 20, 4, 3, 5
LOCAL_CANARIES = 1000
DELTA = 1e-5
CONFIDENCE = 1 - 5e-7
Vector = NDArray[np.float64]
Contribution = Callable[[Vector, float], Vector]


def plan_for(epsilon: float) -> PrivacyPlan:
    return PrivacyPlan.training(
        PrivacyConfig(epsilon=epsilon, delta=DELTA, metrics_share=0.01), rounds=ROUNDS,
        quorum=QUORUM, bits=20, update_size=CANARIES, metric=MetricSums(4, 1.0, 2.0),
        customers_bound=CANARIES)


def epsilon_shown(scores: Vector, inside: NDArray[np.bool_]) -> float:
    """Lower bound on epsilon at DELTA. The threshold comes from one half of the canaries, the
    error rates from the other."""
    threshold = np.quantile(scores[::2], [0.25, 0.75]).mean()
    scores, inside = scores[1::2], inside[1::2]

    def worst(errors: int, trials: int) -> float:
        return 1.0 if errors == trials else float(
            beta.ppf(CONFIDENCE, errors + 1, trials - errors))

    false_in = worst(int((scores[~inside] > threshold).sum()), int((~inside).sum()))
    false_out = worst(int((scores[inside] <= threshold).sum()), int(inside.sum()))
    mu = -norm.ppf(false_in) - norm.ppf(false_out)
    return gaussian_epsilon(max(float(mu), 0.0), DELTA)


def clip_customers(gradients: Vector, clip: float) -> Vector:
    """(n, examples, d): the mean over a customer's examples, clipped by customer, summed."""
    return clip_and_sum(gradients.mean(axis=1), clip)


def clip_examples(gradients: Vector, clip: float) -> Vector:
    return clip_and_sum(gradients.reshape(-1, gradients.shape[-1]), clip)


def count_twice(gradients: Vector, clip: float) -> Vector:
    return 2 * clip_customers(gradients, clip)


class Thin(NoiseSource):
    """Seeded bug: the noise of the sum divided by the partners, not by their root."""

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return super().discrete_gaussian(std_steps / QUORUM, size)


class Replayed(NoiseSource):
    """Seeded bug: the same noise in each round, as from a seed that is set anew."""

    def __init__(self) -> None:
        self._first: dict[tuple[float, int], NDArray[np.int64]] = {}

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        fresh = super().discrete_gaussian(std_steps, size)
        return self._first.setdefault((std_steps, size), fresh)


def audit(plan: PrivacyPlan, *, contribution: Contribution = clip_customers,
          source: type[NoiseSource] = NoiseSource, opened: int = HONEST) -> float:
    """Epsilon shown against the sum of ``opened`` partners' contributions: by default the
    quorum without its colluder, who knows its own part."""
    inside = np.random.default_rng().random(CANARIES) < 0.5
    sources = [source() for _ in range(opened)]
    clip = plan.region("update").clip_norm
    signals = []
    for partner in range(opened):
        own = np.flatnonzero(inside & (np.arange(CANARIES) % opened == partner))
        signals.append(_canary_sum(own, contribution, clip))
    scores = np.zeros(CANARIES)
    for number in range(ROUNDS):
        # The server chooses the model, so it may turn the canaries' gradients around.
        sign = (-1) ** number
        sums = (plan.quantise({"update": sign * signal, "metric": np.zeros(4),
                               "loss": np.zeros(1)}, noise)
                for signal, noise in zip(signals, sources, strict=True))
        total = np.sum(list(sums), axis=0)
        scores += sign * plan.dequantise(total)["update"]
    return epsilon_shown(scores, inside)


def _canary_sum(own: NDArray[np.intp], contribution: Contribution, clip: float) -> Vector:
    """Canaries 100 at a time, in their own 100 directions: the other coordinates are zero."""
    total = np.zeros(CANARIES)
    for chunk in np.array_split(own, max(1, len(own) // 100)):
        gradients = np.repeat(100.0 * np.eye(len(chunk))[:, None, :], EXAMPLES, axis=1)
        total[chunk] = contribution(gradients, clip)
    return total


@pytest.mark.parametrize(("epsilon", "power"), [(1.0, 0.0), (3.0, 0.8), (8.0, 5.0)])
def test_the_right_mechanism_stays_below_its_claim(epsilon: float, power: float) -> None:
    plan = plan_for(epsilon)
    shown = audit(plan)
    assert power <= shown < plan.epsilon(ROUNDS)


def test_a_leaked_key_shows_more_but_not_more_than_it_says() -> None:
    plan = plan_for(3.0)
    shown = audit(plan, opened=1)
    assert 2.3 < shown < plan.epsilon_if_key_leaks(ROUNDS)


@pytest.mark.parametrize("bug", [
    {"source": Thin}, {"source": Replayed}, {"contribution": clip_examples},
    {"contribution": count_twice}], ids=["thin noise", "replayed noise", "clips examples",
                                         "counts twice"])
def test_a_seeded_bug_is_caught(bug: dict) -> None:
    plan = plan_for(3.0)
    assert audit(plan, **bug) > plan.epsilon(ROUNDS)


class NoHeadNoise(NoiseSource):
    """Seeded bug: a head that is fitted to the exact sums, because it never leaves."""

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)


def audit_head(source: type[NoiseSource] = NoiseSource,
               contribution: Contribution = clip_customers) -> float:
    """Epsilon shown against one partner's kept sums, given to the attacker as they are; every
    canary pulls at a parameter of its own of the head."""
    plan = PrivacyPlan.training(
        PrivacyConfig(epsilon=3.0, delta=DELTA, metrics_share=0.01), rounds=ROUNDS,
        quorum=QUORUM, bits=20, update_size=4, kept=CANARIES, metric=MetricSums(4, 1.0, 2.0),
        customers_bound=CANARIES)
    inside = np.random.default_rng().random(CANARIES) < 0.5
    signal = _canary_sum(np.flatnonzero(inside), contribution, plan.region("update").clip_norm)
    noise = source()
    scores = sum(plan.keep(signal, noise) for _ in range(ROUNDS))
    return epsilon_shown(np.asarray(scores), inside)


def test_a_head_shows_no_more_than_the_run_claims() -> None:
    assert 0.8 <= audit_head() < 3.0


@pytest.mark.parametrize("bug", [
    {"source": NoHeadNoise}, {"contribution": count_twice}], ids=["no noise", "counts twice"])
def test_a_leaking_head_is_caught(bug: dict) -> None:
    assert audit_head(**bug) > 3.0


class Slope(nn.Module):
    """Gradient of a customer whose only feature is j: along coordinate j."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(LOCAL_CANARIES, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.weight(features)


@pytest.mark.parametrize(("fraction", "caught"), [(1.0, False), (0.3, True)])
def test_local_training_is_as_private_as_it_says(fraction: float, caught: bool) -> None:
    """Full participation, 4 steps; the seeded bug adds a third of the noise."""
    size, steps, epsilon = LOCAL_CANARIES, 4, 3.0
    sigma = steps ** 0.5 / gaussian_mu(epsilon, DELTA)
    inside = np.random.default_rng().random(size) < 0.5
    features = (10 * np.eye(size, dtype=np.float32))[inside][:, None, :]
    count = len(features)
    ones = np.ones((count, 1, 1), np.float32)
    everybody = Customers(features, ones, ones[..., 0] > 0, ones)

    def gradients(model: nn.Module, sample: Sample) -> Iterator[NDArray[np.float32]]:
        return customer_gradients(model, everybody.take(np.flatnonzero(sample(count))),
                                  CrossEntropy())

    change = dp_sgd(
        Slope(), gradients, steps=steps, sample_rate=1.0,
        noise_multiplier=fraction * sigma, clip_norm=1.0, learning_rate=1e-3,
        expected_customers=size)
    assert (epsilon_shown(change, inside) > epsilon) == caught
