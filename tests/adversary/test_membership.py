"""Whether somebody is a customer: what a server can make of the sums, on the real path of a site.

From a partner's table through the task's own loader, training, clipping, rounding and noise, with
models and public settings that a server would choose. The attacker of the guessing game knows
everything but one bit: both data sets, the model, and the law of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from client import local_round
from client.local_round import test_sums as held_out_sums
from client.local_round import training_sums
from conf.schema import Config, FederationConfig, ModelConfig, PrivacyConfig, TaskConfig
from learning.customers import PartnerData
from learning.models import get_flat
from learning.registry import make_model, make_task
from privacy.clipping import clip_and_sum
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from strategies.agreement import Agreement
from tests.learning.test_parts import MAKE, TASK, loaded

Vector = NDArray[np.float64]
CUSTOMERS = 14
ODD: dict[str, dict[str, object]] = {
    "as they are": {},
    "one category, no quiet days": {"categories": ["a"], "quiet_days": 0},
    "a long memory": {"history_days": 300, "train_snapshots": ["2024-05-01", "2024-05-02"],
                      "quiet_days": 0},
    "a short one": {"history_days": 2, "quiet_days": 0, "horizon_days": 1},
}
"""Public settings that a server may choose."""


def configured(task: TaskConfig, **groups: object) -> Config:
    federation = FederationConfig(partners=["north", "south"],
                                  customers={"north": CUSTOMERS, "south": CUSTOMERS})
    return Config(task=task, federation=federation, **groups).validate()  # type: ignore[arg-type]


def hostile(size: int, number: int) -> Vector:
    random = np.random.default_rng([size, number])
    kinds: list[Callable[[], Vector]] = [
        lambda: np.zeros(size), lambda: random.normal(size=size),
        lambda: random.choice([1e6, -1e6], size), lambda: np.full(size, np.nan),
        lambda: np.where(np.arange(size) == number % size, 1e300, 0.1),
        lambda: np.where(np.arange(size) == size - 1, -1e6, 0.0),
        lambda: random.choice([3e38, -3e38, 1e-40, 0.0], size)]
    with np.errstate(over="ignore"):  # as a model holds it: 1e300 is infinite there
        return kinds[number % len(kinds)]().astype(np.float32).astype(np.float64)


def neighbours(task: TaskConfig, folder: Path, history: bool,
               seed: int) -> tuple[PartnerData, list[PartnerData]]:
    """The data of everybody, and without the busiest customer, and without one or two others."""
    frame = MAKE[task.name](CUSTOMERS, seed)
    names = frame["customer"].value_counts(sort=True)["customer"].to_list()
    everybody = loaded(frame, folder / "everybody.parquet", task, history)
    return everybody, [
        loaded(frame.filter(pl.col("customer") != name), folder / f"{name}.parquet", task, history)
        for name in (names[0], names[1], names[-1])]


def settings_of(name: str) -> list[TaskConfig]:
    if name in ("retail_cross", "utility_load"):
        return [TASK[name]]
    if name == "retail_demand":
        return [TASK[name], replace(TASK[name], categories=["a"])]
    return [replace(TASK[name], **odd) for odd in ODD.values()]  # type: ignore[arg-type]


@pytest.mark.parametrize("contribution", ["gradient", "training"])
@pytest.mark.parametrize("model", ["linear", "mlp", "tcn", "dpgru"])
@pytest.mark.parametrize("name", TASK)
def test_one_customer_moves_a_sum_by_its_own_clipped_row(
        name: str, model: str, contribution: str, tmp_path: Path) -> None:
    """Under every model, public setting and neighbour: in the update, metric and loss of a round,
    and in the test release."""
    slow = model in ("tcn", "dpgru")
    for seed, task in enumerate(settings_of(name)[:1 if slow else None]):
        config = configured(task, model=ModelConfig(model, hidden=2),
                            privacy=PrivacyConfig(contribution=contribution, local_steps=2))
        agreement, size = Agreement.of(config), get_flat(make_model(config)).size
        everybody, others = neighbours(task, tmp_path, config.model.reads_history, seed)
        moved = 0.0
        for number in (1, 3, 4) if slow else range(7):
            vector = hostile(size, number)
            whole = dict(training_sums(vector, everybody, config, agreement, "north"))
            tested = dict(held_out_sums(vector, everybody, config))
            for other in others:
                rest = training_sums(vector, other, config, agreement, "north")
                for region in agreement.training.regions:
                    change = np.linalg.norm(whole[region.name] - rest[region.name])
                    assert change <= region.clip_norm, (task, number, region.name)
                    moved = max(moved, float(change))
                left = held_out_sums(vector, other, config)
                for region in agreement.test.regions:
                    change = np.linalg.norm(tested[region.name] - left[region.name])
                    assert change <= region.clip_norm, (task, number, region.name)
        assert moved > 0, "nobody's absence showed: the test sees nothing"


class Silent(NoiseSource):
    """No noise, everybody sampled, rounding down."""

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)

    def uniform(self, size: int) -> Vector:
        return np.zeros(size)


@pytest.mark.parametrize("name", TASK)
def test_one_customer_moves_a_step_of_local_dp_by_its_clip(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy import local_dp

    monkeypatch.setattr(local_dp, "NoiseSource", Silent)
    monkeypatch.setattr(local_dp._GridOptimiser, "source", Silent())
    config = configured(TASK[name], privacy=PrivacyConfig(
        "local_dp", local_steps=1, sample_rate=1.0, local_learning_rate=1.0))
    agreement, size = Agreement.of(config), get_flat(make_model(config)).size
    everybody, others = neighbours(config.task, tmp_path, False, 5)
    clip = config.privacy.clip_norm / CUSTOMERS  # the public divisor
    grid = clip / 100 * math.sqrt(size)  # rounding of the noisy step (privacy.local_grid)
    for number in (0, 1, 2, 5):
        vector = hostile(size, number)
        whole = training_sums(vector, everybody, config, agreement, "north")["update"]
        for other in others:
            rest = training_sums(vector, other, config, agreement, "north")["update"]
            coarse = float(np.abs(vector).max()) * 2.0**-22 * math.sqrt(size)  # float32 parameters
            assert np.linalg.norm(whole - rest) <= clip * (1 + 1e-6) + grid + coarse


# --- guessing ---------------------------------------------------------------------------------


def epsilon_at_least(correct: int, trials: int, delta: float) -> float:
    """Lower bound (95%) from guesses of a fair coin: a guess of an (epsilon, delta)-private bit is
    right with chance (e^epsilon + delta) / (1 + e^epsilon) at most (Kairouz et al. 2015)."""
    chance = float(beta.ppf(0.05, correct, trials - correct + 1)) if correct else 0.0
    return math.log(max((chance - delta) / (1 - chance), 1.0)) if chance < 1 else math.inf


def guesses(plan: PrivacyPlan, inside: dict[str, Vector], outside: dict[str, Vector],
            trials: int) -> int:
    """How many of ``trials`` coins the best test gets right, from the noised sum of one site and
    an honest colleague that adds nothing but its noise."""
    noise, random = NoiseSource(), np.random.default_rng()
    nothing = {region.name: np.zeros(region.size) for region in plan.regions}
    weights = {region.name: (inside[region.name] - outside[region.name])
               / (region.share_std_steps * region.step) ** 2 for region in plan.regions}
    middle = sum(float((inside[key] + outside[key]) @ weight) / 2
                 for key, weight in weights.items())
    right = 0
    for _ in range(trials):
        member = bool(random.integers(2))
        total = plan.quantise(inside if member else outside, noise) + plan.quantise(nothing, noise)
        opened = plan.dequantise(total)
        statistic = sum(float(opened[key] @ weight) for key, weight in weights.items())
        right += (statistic > middle) == member
    return right


def with_and_without(config: Config, agreement: Agreement, vector: Vector,
                     folder: Path) -> tuple[dict[str, Vector], dict[str, Vector]]:
    """A site's sums with the customer, of a few, who moves them most, and without."""
    everybody, others = neighbours(config.task, folder, False, 3)
    inside = dict(training_sums(vector, everybody, config, agreement, "north"))
    rest = [dict(training_sums(vector, other, config, agreement, "north")) for other in others]
    return inside, max(rest, key=lambda sums: float(sum(
        np.linalg.norm(sums[name] - inside[name]) for name in inside)))


@pytest.mark.parametrize("number", range(7))
def test_guesses_stay_within_epsilon(number: int, tmp_path: Path) -> None:
    """The busiest customer, few categories, one snapshot, a hostile model: the attack that was
    always right, one round each."""
    task = replace(TASK["retail_repeat"], categories=["a"], quiet_days=0)
    config = configured(task)
    agreement = Agreement.of(config)
    plan = agreement.training
    vector = hostile(get_flat(make_model(config)).size, number)
    inside, outside = with_and_without(config, agreement, vector, tmp_path)
    right = guesses(plan, inside, outside, 400)
    assert epsilon_at_least(right, 400, plan.delta) < plan.epsilon_if_key_leaks(1) < 3


def test_the_game_sees_a_row_that_counts_too_much(tmp_path: Path) -> None:
    """The fault as it was: a change of 30 clips is guessed beyond the claim."""
    task = replace(TASK["retail_repeat"], categories=["a"], quiet_days=0)
    config = configured(task)
    agreement = Agreement.of(config)
    plan = agreement.training
    vector = hostile(get_flat(make_model(config)).size, 1)
    inside, outside = with_and_without(config, agreement, vector, tmp_path)
    assert (inside["update"] != outside["update"]).any()
    outside["update"] = inside["update"] - 30 * (inside["update"] - outside["update"])
    right = guesses(plan, inside, outside, 400)
    assert epsilon_at_least(right, 400, plan.delta) > plan.epsilon(1)


# --- one run, many canaries -------------------------------------------------------------------

CANARIES, ROUNDS = 1000, 4


def canaries(inside: NDArray[np.bool_], shape_size: int) -> PartnerData:
    """A customer each with one purchase of a category of its own."""
    from learning.customers import CustomerParts, Customers

    own = np.flatnonzero(inside)
    features = np.zeros((len(own), 1, shape_size), np.float32)
    features[np.arange(len(own)), 0, shape_size - CANARIES + own] = 2.0
    ones = np.ones((len(own), 1, 1), np.float32)
    part = CustomerParts.of(Customers(features, ones, ones[..., 0] > 0, ones))
    nobody = CustomerParts.of(Customers(*(array[:0] for array in (
        features, ones, ones[..., 0] > 0, ones))))
    return PartnerData(part, nobody, nobody, nobody)


@pytest.mark.parametrize("number", [0, 2, 4, 5])
def test_one_run_of_canaries_shows_no_more_than_the_run_claims(number: int) -> None:
    """Under models that a server would choose, through the site's own round."""
    assert _audit(number, lambda rows, clip: clip_and_sum(rows, clip)) < 3.0


def test_the_audit_sees_a_seeded_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _audit(0, lambda rows, clip: 12 * clip_and_sum(rows, clip), monkeypatch) > 3.0


def _audit(number: int, summed: Callable[[Vector, float], Vector],
           monkeypatch: pytest.MonkeyPatch | None = None) -> float:
    from tests.statistical.test_canary_audit import epsilon_shown

    if monkeypatch:
        monkeypatch.setattr(local_round, "clip_and_sum", summed)
    task = replace(TASK["retail_repeat"], categories=[f"c{n:04}" for n in range(CANARIES)])
    config = configured(task)
    config = replace(config, strategy=replace(config.strategy, rounds=ROUNDS))
    agreement, shape = Agreement.of(config), make_task(config).shape
    inside = np.random.default_rng().random(CANARIES) < 0.5
    data, noise = canaries(inside, shape.size), NoiseSource()
    vector = hostile(shape.size + 1, number)
    sums = dict(training_sums(vector, data, config, agreement, "north"))
    plan, scores = agreement.training, np.zeros(CANARIES)
    nothing = {region.name: np.zeros(region.size) for region in plan.regions}
    for _ in range(ROUNDS):
        opened = plan.dequantise(plan.quantise(sums, noise) + plan.quantise(nothing, noise))
        scores += opened["update"][shape.size - CANARIES:-1]
    return epsilon_shown(scores, inside)
