"""The partner's ledger: written first, chained, composed over everything, never overspent."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import dp_accounting as dp
import pytest

from conf.schema import PrivacyConfig
from privacy.accounting import gaussian_epsilon, rdp_epsilon
from privacy.ledger import BudgetExceeded, Ledger, SpentOtherwise
from privacy.ledger_file import LedgerBroken
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

DELTA = 1e-5
ROOT = Path(__file__).resolve().parents[2]
GAUSSIAN = dp.GaussianDpEvent(10.0)
SAMPLED = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.jsonl"


def spend_many(ledger: Ledger, run_id: str, count: int, event: dp.DpEvent = GAUSSIAN) -> None:
    for number in range(1, count + 1):
        ledger.spend(run_id, number, event, failure=0.0)


def test_a_whole_plan_fits_its_own_epsilon_and_not_one_round_more(path: Path) -> None:
    plan = PrivacyPlan.training(PrivacyConfig(), rounds=20, quorum=6, bits=16, update_size=30,
                                metric=MetricSums(40, 1.0, 2.0), customers_bound=400)
    ledger = Ledger(path, 3.0, DELTA)
    for number in range(1, 21):
        ledger.spend("a", number, plan.round_event(), start=plan.start_event(),
                     failure=plan.failure)
    assert 2.99 < ledger.spent() <= plan.epsilon(20) <= 3.0 * (1 + 1e-8)
    with pytest.raises(BudgetExceeded) as caught:
        ledger.spend("a", 21, plan.round_event(), start=plan.start_event(),
                     failure=plan.failure)
    assert caught.value.spent == ledger.spent()
    assert caught.value.asked > caught.value.limit == 3.0
    for text in ("3 spent", "3.08", "limit 3", "epsilon-limit", "1e-05"):
        assert text in str(caught.value)


def test_the_start_of_a_run_is_charged_once_and_whoever_joins_late_pays_it(path: Path) -> None:
    ledger = Ledger(path, None, DELTA)
    start = dp.GaussianDpEvent(5.0)
    for number in (3, 4):
        ledger.spend("a", number, GAUSSIAN, start=start, failure=0.0)
    assert [(entry.run_id, entry.round) for entry in ledger.entries()] == [
        ("a", 0), ("a", 3), ("a", 4)]
    assert ledger.spent() == gaussian_epsilon(math.sqrt(1 / 25 + 2 / 100), DELTA)
    ledger.spend("b", 1, GAUSSIAN, start=dp.NoOpDpEvent(), failure=0.0)
    assert len(ledger.entries()) == 4


def test_the_same_round_again_costs_nothing(path: Path) -> None:
    ledger = Ledger(path, None, DELTA)
    head = ledger.spend("a", 1, GAUSSIAN, failure=0.0)
    content = path.read_bytes()
    assert ledger.spend("a", 1, dp.GaussianDpEvent(10.0), failure=0.0) == head == ledger.head
    assert path.read_bytes() == content


def test_the_same_round_with_other_noise_is_refused(path: Path) -> None:
    ledger = Ledger(path, None, DELTA)
    ledger.spend("a", 1, GAUSSIAN, failure=0.0)
    with pytest.raises(SpentOtherwise, match="run a round 1"):
        ledger.spend("a", 1, dp.GaussianDpEvent(20.0), failure=0.0)
    with pytest.raises(ValueError, match="from 1"):
        ledger.spend("a", 0, GAUSSIAN, failure=0.0)
    assert len(ledger.entries()) == 1


def test_a_refusal_writes_nothing_and_a_smaller_release_still_fits(path: Path) -> None:
    ledger = Ledger(path, 1.0, DELTA)
    ledger.spend("a", 1, dp.GaussianDpEvent(5.0), failure=0.0)
    content = path.read_bytes()
    with pytest.raises(BudgetExceeded):
        ledger.spend("a", 2, dp.GaussianDpEvent(2.0), failure=0.0)
    assert path.read_bytes() == content
    ledger.spend("a", 2, dp.GaussianDpEvent(50.0), failure=0.0)


def test_runs_compose(path: Path) -> None:
    spend_many(Ledger(path, None, DELTA), "a", 10)
    spend_many(Ledger(path, None, DELTA), "b", 10)
    together = gaussian_epsilon(math.sqrt(20 / 100), DELTA)
    assert Ledger(path, None, DELTA).spent() == pytest.approx(together)
    with pytest.raises(BudgetExceeded):
        Ledger(path, together, DELTA).spend("c", 1, GAUSSIAN, failure=0.0)


def test_sampled_releases_go_through_renyi(path: Path) -> None:
    ledger = Ledger(path, 20.0, DELTA)
    spend_many(ledger, "a", 10, SAMPLED)
    ledger.spend("b", 1, GAUSSIAN, failure=0.0)
    expected = dp.ComposedDpEvent([dp.SelfComposedDpEvent(SAMPLED, 10), GAUSSIAN])
    assert ledger.spent() == pytest.approx(rdp_epsilon(expected, DELTA))
    with pytest.raises(BudgetExceeded, match="Renyi"):
        ledger.spend("b", 2, dp.SelfComposedDpEvent(SAMPLED, 2000), failure=0.0)


def test_a_ledger_of_gaussians_does_not_change_its_filter(path: Path) -> None:
    ledger = Ledger(path, 20.0, DELTA)
    ledger.spend("a", 1, GAUSSIAN, failure=0.0)
    with pytest.raises(BudgetExceeded, match="noise_shares"):
        ledger.spend("a", 2, SAMPLED, failure=0.0)
    reporting = Ledger(path, None, DELTA)
    reporting.spend("a", 2, SAMPLED, failure=0.0)
    assert reporting.spent() == pytest.approx(
        rdp_epsilon(dp.ComposedDpEvent([GAUSSIAN, SAMPLED]), DELTA))


def test_a_release_without_privacy_needs_a_ledger_without_limit(path: Path) -> None:
    with pytest.raises(BudgetExceeded):
        Ledger(path, 100.0, DELTA).spend("a", 1, dp.NonPrivateDpEvent(), failure=0.0)
    ledger = Ledger(path, None, DELTA)
    ledger.spend("a", 1, dp.NonPrivateDpEvent(), failure=0.0)
    assert ledger.spent() == math.inf


@pytest.mark.parametrize("edit", ["smaller", "dropped", "swapped", "garbage", "key", "doubled"])
def test_an_edited_file_is_refused(path: Path, edit: str) -> None:
    ledger = Ledger(path, None, DELTA)
    for number in range(1, 5):
        ledger.spend("a", number, dp.GaussianDpEvent(10.0 + number), failure=0.0)
    lines = path.read_text().splitlines()
    if edit == "smaller":
        lines[1] = lines[1].replace("12.0", "99.0")
    elif edit == "dropped":
        del lines[1]
    elif edit == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif edit == "garbage":
        lines[2] = "{"
    elif edit == "key":
        lines[2] = json.dumps(json.loads(lines[2]) | {"extra": 1})
    else:
        lines.insert(2, lines[1])
    path.write_text("\n".join(lines) + "\n")
    for act in (lambda: ledger.spend("a", 9, GAUSSIAN, failure=0.0), ledger.spent,
                lambda: ledger.head):
        with pytest.raises(LedgerBroken, match="line"):
            act()


def test_a_cut_tail_shows_in_the_head_alone(path: Path) -> None:
    ledger = Ledger(path, None, DELTA)
    empty = ledger.head
    spend_many(ledger, "a", 3)
    head = ledger.head
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:2]))
    assert ledger.head not in (head, empty)


def test_a_line_torn_by_a_crash_was_never_granted(path: Path) -> None:
    ledger = Ledger(path, None, DELTA)
    spend_many(ledger, "a", 2)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole.splitlines()[0][:30])
    ledger.spend("a", 3, GAUSSIAN, failure=0.0)
    assert path.read_bytes().startswith(whole)
    assert len(ledger.entries()) == 3


def test_the_entry_is_on_disk_before_spend_returns(
        path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(path.read_bytes()), fsync(fd)))
    Ledger(path, None, DELTA).spend("a", 1, GAUSSIAN, failure=0.0)
    assert seen[-1] == path.read_bytes() and seen[-1].count(b"\n") == 1


def test_a_failed_write_grants_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, payload: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Ledger(path, None, DELTA).spend("a", 1, GAUSSIAN, failure=0.0)


SPENDER = """
import sys
from pathlib import Path
import dp_accounting as dp
from privacy.ledger import BudgetExceeded, Ledger
ledger = Ledger(Path(sys.argv[1]), float(sys.argv[3]), 1e-5)
granted = 0
for number in range(1, 41):
    try:
        ledger.spend(sys.argv[2], number, dp.GaussianDpEvent(10.0), failure=0.0)
        granted += 1
    except BudgetExceeded:
        pass
print(granted)
"""


def test_two_processes_share_one_budget_and_restarts_forget_nothing(path: Path) -> None:
    limit = gaussian_epsilon(math.sqrt(60.5 / 100), DELTA)

    def start(run_id: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", SPENDER, str(path), run_id, str(limit)],
                                stdout=subprocess.PIPE, text=True, cwd=ROOT)

    processes = [start("a"), start("b")]
    granted = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(granted) == 60 == len(Ledger(path, limit, DELTA).entries())
    assert Ledger(path, None, DELTA).spent() == gaussian_epsilon(math.sqrt(0.6), DELTA)
    late = start("c")
    assert int(late.communicate(timeout=60)[0]) == 0


def test_a_hundred_rounds_cost_little(path: Path) -> None:
    ledger = Ledger(path, 3.0, DELTA)
    begin = time.process_time()
    spend_many(ledger, "a", 100, dp.GaussianDpEvent(20.0))
    assert (time.process_time() - begin) / 100 < 3e-3
