"""Delta adds up over runs as epsilon does: what the gate let pass stays within the site's delta."""

import json
import math
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conf.schema import PrivacyConfig
from privacy.accounting import (
    event_mu_squared,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_mu,
    rdp_epsilon,
)
from privacy.ledger import BudgetExceeded, Ledger
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

DELTA = 1e-5


@lru_cache(maxsize=64)
def plan_of(epsilon: float, delta: float = DELTA, quorum: int = 6, rounds: int = 5,
            name: str = "noise_shares") -> PrivacyPlan:
    config = PrivacyConfig(name=name, epsilon=epsilon, delta=delta)
    return PrivacyPlan.training(config, rounds=rounds, quorum=quorum, bits=20, update_size=10,
                                metric=MetricSums(4, 1.0, 2.0), customers_bound=30)


def failure_of(plan: PrivacyPlan, epsilon: float) -> float:
    """Of a noise-share plan, from what ``privacy.planning`` states: each of two bad events costs
    delta / 4000 at the epsilon of a leaked key."""
    mu = gaussian_mu(epsilon, 0.999 * plan.delta)
    worst = gaussian_epsilon(mu * math.sqrt(plan.shares), 0.999 * plan.delta)
    return 2 * plan.delta / 4000 / (1 + math.exp(worst))


def delta_of(mu: float, failure: float, runs: int, epsilon: float) -> float:
    """What runs that compose to ``mu`` cost at ``epsilon``, all that is set aside included."""
    gaussian = math.exp(gaussian_log_delta(mu, epsilon)) if mu else 0.0
    return gaussian * (1 + 1 / 2000) ** runs + (1 + math.exp(epsilon)) * failure


def spend_runs(ledger: Ledger, plan: PrivacyPlan, first: int, count: int) -> int:
    """How many of ``count`` whole runs the gate lets pass."""
    for number in range(count):
        try:
            ledger.spend(f"run {first + number}", 1, plan.event(plan.rounds), failure=plan.failure)
        except BudgetExceeded:
            return number
    return count


RUNS = st.tuples(st.sampled_from((0.1, 0.3, 1.0, 3.0)), st.sampled_from((1e-5, 1e-6, 1e-8)),
                 st.sampled_from((2, 6)), st.integers(1, 70))


@settings(max_examples=25, deadline=None)
@given(st.lists(RUNS, min_size=1, max_size=4), st.sampled_from((0.5, 3.0, 5.0, 12.0)))
@example([(0.3, 1e-5, 6, 200)], 3.0)
@example([(0.1, 1e-5, 2, 70), (0.3, 1e-5, 2, 70), (0.1, 1e-5, 6, 70)], 12.0)
def test_whatever_runs_the_gate_lets_pass_cost_no_more_than_the_sites_delta(
        wanted: list[tuple[float, float, int, int]], limit: float) -> None:
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", limit, DELTA)
        squared = failure = 0.0
        runs = 0
        for epsilon, delta, quorum, count in wanted:
            plan = plan_of(epsilon, delta, quorum)
            passed = spend_runs(ledger, plan, runs, count)
            squared += passed * event_mu_squared(plan.event(plan.rounds))
            failure += passed * failure_of(plan, epsilon)
            runs += passed
        spent = ledger.spent()
    assert spent <= limit
    grid = np.linspace(0, spent, 50) if spent else [0.0]
    least = min(delta_of(math.sqrt(squared), failure, runs, epsilon) for epsilon in grid)
    assert least <= DELTA * (1 + 1e-6)


def test_many_small_runs_under_a_large_limit_are_counted(tmp_path: Path) -> None:
    """By mu alone more of them fit a limit of 3, and then cost a quarter of delta on top."""
    plan = plan_of(0.3)
    mu_squared = event_mu_squared(plan.event(plan.rounds))
    by_mu = int(gaussian_mu(3.0, DELTA) ** 2 / mu_squared)
    whole = delta_of(math.sqrt(by_mu * mu_squared), by_mu * failure_of(plan, 0.3), by_mu, 3.0)
    assert whole > 1.1 * DELTA
    passed = spend_runs(Ledger(tmp_path / "ledger.jsonl", 3.0, DELTA), plan, 0, 2 * by_mu)
    assert 0.8 * by_mu < passed < by_mu


@pytest.mark.parametrize("quorum", [2, 6, 60])
@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_one_run_fits_a_site_whose_limit_is_its_epsilon(
        tmp_path: Path, quorum: int, epsilon: float) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", epsilon, DELTA)
    assert spend_runs(ledger, plan_of(epsilon, DELTA, quorum), 0, 2) == 1


def test_the_plan_states_what_it_sets_aside() -> None:
    plan = plan_of(0.3)
    assert plan.failure == pytest.approx(failure_of(plan, 0.3), rel=1e-6)
    local = plan_of(0.3, name="local_dp")
    assert 0 < local.failure <= DELTA / 4000 and plan_of(0.3, name="none").failure == 0


def test_renyi_accounting_counts_failures_too(tmp_path: Path) -> None:
    plan = plan_of(1.0, name="local_dp")
    ledger = Ledger(tmp_path / "ledger.jsonl", None, DELTA)
    ledger.spend("a", 1, plan.event(plan.rounds), failure=1e-8)
    spent = ledger.spent()
    left = DELTA - (1 + math.exp(spent)) * 1e-8
    assert rdp_epsilon(plan.event(plan.rounds), DELTA) < spent
    assert rdp_epsilon(plan.event(plan.rounds), left) <= spent * (1 + 1e-8)


def test_what_leaves_no_delta_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 3.0, DELTA)
    with pytest.raises(BudgetExceeded):
        ledger.spend("a", 1, plan_of(1.0).round_event(), failure=DELTA)


def test_lines_of_an_earlier_version_are_charged_the_most_that_they_may_have_set_aside(
        tmp_path: Path) -> None:
    path, plan = tmp_path / "ledger.jsonl", plan_of(0.3)
    spend_runs(Ledger(path, None, DELTA), plan, 0, 20)
    new = Ledger(path, None, DELTA).spent()
    entries = Ledger(path, None, DELTA).entries()
    earlier, previous = [], entries[0].previous
    for entry in entries:
        fields = json.loads(entry.line) | {"previous": previous}
        del fields["failure"]
        earlier.append(type(entry)(**fields))
        previous = earlier[-1].digest
    path.write_text("".join(entry.line + "\n" for entry in earlier))
    old = Ledger(path, None, DELTA)
    assert [entry.failure for entry in old.entries()] == [None] * 20
    mu = math.sqrt(20 * event_mu_squared(plan.event(plan.rounds)))
    assert gaussian_epsilon(mu, DELTA) < new <= old.spent() < 1.05 * new
    assert spend_runs(old, plan, 20, 1) == 1 and old.entries()[-1].failure == plan.failure
