"""Partners of any size train with the defaults, and what cannot be says what would do."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conf.schema import MOST_CUSTOMERS, Config, InvalidConfig
from encryption.accumulator import digest, make_accumulator, update_bytes
from encryption.parameters import choose_parameters
from encryption.types import OpeningClaim, RoundId
from experiments.in_the_open import composed
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.opening import SumOpener
from keyholder.sealer import Sealer
from privacy.grid import MAX_INFLATION, PlanImpossible, narrowest
from privacy.noise import NoiseSource
from privacy.plan import PrivacyPlan
from strategies.agreement import Agreement
from strategies.widths import check_before_data

TASKS = ("retail_repeat", "retail_demand", "retail_cross", "utility_load")
MODES = ("noise_shares", "local_dp", "none")
SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
SIZES = (10, 1_000, 100_000, 1_000_000)


@cache
def _composed(overrides: tuple[str, ...]) -> Config:
    return composed(*overrides)


def with_suite(made: Config, suite: str) -> Config:
    return replace(made, encryption=replace(made.encryption, name=suite))


def config(customers: int, partners: int, *overrides: str) -> Config:
    """The defaults, but for ``overrides``; the first partner has so many customers, others one."""
    names = [f"p{place}" for place in range(partners)]
    made = _composed(overrides)
    task = replace(made.task, holdout_partners=[], calendars={})
    federation = replace(made.federation, partners=names,
                         customers=dict.fromkeys(names, 1) | {"p0": customers})
    return replace(made, task=task, federation=federation).validate()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("contribution", ["gradient", "training"])
def test_every_size_trains_with_the_defaults(task: str, mode: str, contribution: str) -> None:
    for customers in SIZES:
        for partners in (2, 100):
            made = config(customers, partners, f"task={task}", f"privacy={mode}",
                          f"privacy.contribution={contribution}")
            for suite in SUITES:
                _holds(Agreement.of(with_suite(made, suite)), made)


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 6.3), st.integers(2, 100), st.sampled_from(TASKS),
       st.sampled_from(("linear", "mlp", "tcn")), st.sampled_from(SUITES),
       st.sampled_from((0.5, 1.0, 3.0, 8.0)), st.sampled_from((1, 10, 100, 300)))
def test_any_size_trains_and_keeps_its_epsilon(
        exponent: float, partners: int, task: str, model: str, suite: str, epsilon: float,
        rounds: int) -> None:
    for mode in ("noise_shares", "local_dp"):
        made = with_suite(config(round(10**exponent), partners, f"task={task}", f"model={model}",
                                 f"privacy={mode}"), suite)
        made = replace(made, privacy=replace(made.privacy, epsilon=epsilon),
                       strategy=replace(made.strategy, rounds=rounds)).validate()
        found = Agreement.of(made)
        _holds(found, made)
        assert found == Agreement.of(made)  # parties agree, whoever computes it


def _holds(found: Agreement, made: Config) -> None:
    mode, epsilon = made.privacy.name, made.privacy.epsilon
    bits, least = found.parameters.bits, made.encryption.bits
    assert len(found.partners) << bits <= 2**48
    for plan in (found.training, found.test):
        assert plan.bits == bits
        if mode != "none":
            assert plan.epsilon(plan.rounds) <= epsilon * (1 + 1e-8)
        for region in plan.regions:
            assert region.bits == bits or mode != "noise_shares"  # never split into digits
            assert 1 <= region.inflation <= MAX_INFLATION
            assert (region.clamp_steps + 6 * region.share_std_steps < 2 ** (region.bits - 1))
            if region.share_std_steps:
                assert region.share_std_steps * math.sqrt(plan.shares) >= 64 * (1 - 1e-9)
            assert region.whole or region.bits == least, "a wider value is wide enough for any sum"


@pytest.mark.parametrize("suite", SUITES)
def test_where_16_bits_do_nothing_changes(suite: str) -> None:
    found = Agreement.of(config(500, 4, f"encryption={suite}"))
    assert found.parameters == choose_parameters(suite, 4, 16)


def test_the_least_width_is_the_configurations() -> None:
    assert Agreement.of(config(10, 4, "encryption.bits=23")).parameters.bits == 23
    assert Agreement.of(config(10, 4, "encryption.bits=8")).parameters.bits > 8


class Extreme(NoiseSource):
    """Noise as far out as saturation, all on one side, and rounding upwards."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def discrete_gaussian(self, std_steps: float, size: int) -> NDArray[np.int64]:
        return np.full(size, self.sign * round(13 * std_steps), np.int64)

    def uniform(self, size: int) -> NDArray[np.float64]:
        return np.zeros(size)


@pytest.mark.parametrize("customers", SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("suite", SUITES)
def test_extreme_sums_open_exactly_whatever_the_size(
        suite: str, mode: str, customers: int, tmp_path: Path) -> None:
    """A round of training and the test, through sealer, accumulator and opener: all customers of
    every partner pull every value as far as they can, one way or the other, and so does noise."""
    names = [f"p{place}" for place in range(4)]
    made = config(customers, 4, f"encryption={suite}", f"privacy={mode}")
    made = replace(made, federation=replace(
        made.federation, customers=dict.fromkeys(names, customers)))
    found = Agreement.of(made)
    key = SharedKey.generate(found.parameters)
    for number, (kind, plan) in enumerate((("train", found.training), ("test", found.test)), 1):
        for sign in (-1, 1):
            run = RoundId(f"{kind}{sign}", number)
            sent = [plan.quantise({region.name: np.full(region.size, sign * region.largest)
                                   for region in plan.regions}, Extreme(sign)) for _ in names]
            opened = _through(found, kind, key, sent, run, tmp_path / f"{kind}{sign}")
            assert np.array_equal(opened, np.sum(sent, axis=0))
            _reads(plan, opened, sign, len(names))


def _through(found: Agreement, kind: str, key: SharedKey, sent: list[NDArray[np.int64]],
             run: RoundId, folder: Path) -> NDArray[np.int64]:
    layout = found.layout(kind)
    total = make_accumulator(layout, run.round)
    for place, values in enumerate(sent):
        blocks = Sealer(key, layout, place).seal(values, run)
        assert sum(map(len, blocks)) == update_bytes(layout)
        total.fold(blocks, place)
    blocks = total.finish()
    claim = OpeningClaim(run, tuple(range(len(sent))), digest(blocks))
    return SumOpener(key, layout, OpeningGuard(folder), len(sent)).open(claim, blocks).values


def _reads(plan: PrivacyPlan, opened: NDArray[np.int64], sign: int, partners: int) -> None:
    """The sum that was meant, but for the noise and, where it is cut, for what is said to be."""
    for name, total in plan.dequantise(opened).items():
        region = plan.region(name)
        largest = sign * partners * min(region.largest, region.clamp)
        noise = sign * partners * round(13 * region.share_std_steps) * region.step
        end = 2 ** (region.bits - 1) * region.step * partners
        wanted = np.clip(largest + noise, -end, end)
        assert np.allclose(total, wanted, atol=1.01 * partners * region.step, rtol=0)


@pytest.mark.parametrize("count", [0, -3, MOST_CUSTOMERS + 1, 10**12, 2**63 - 1])
@pytest.mark.parametrize("mode", MODES)
def test_sizes_that_nobody_has_are_refused_by_name(count: int, mode: str) -> None:
    with pytest.raises(InvalidConfig, match=r"must lie in 1\.\.4000000") as caught:
        config(count, 3, f"privacy={mode}")
    assert caught.value.key == "federation.customers.p0"


@pytest.mark.parametrize("count", [1, 2, MOST_CUSTOMERS])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("partners", [2, 100])
def test_the_smallest_and_the_largest_size_train(count: int, mode: str, partners: int) -> None:
    found = Agreement.of(config(count, partners, f"privacy={mode}"))
    for plan in (found.training, found.test):
        assert mode == "none" or plan.epsilon(plan.rounds) <= 3.0 * (1 + 1e-8)


IMPOSSIBLE = (
    (1000, 2, "privacy.epsilon=0.1", "strategy.rounds=3000", "model=mlp", "model.hidden=512"),
    (1000, 3, "privacy.epsilon=0.02", "strategy.rounds=100000"),
    (10**6, 3, "privacy.epsilon=0.1", "strategy.rounds=1000", "model=mlp", "model.hidden=4096"),
    (10, 2, "privacy=local_dp", "model=mlp", "model.hidden=4096", "privacy.epsilon=0.1"),
    (4 * 10**6, 3, "privacy.epsilon=0.1", "strategy.rounds=300", "model=mlp",
     "model.hidden=4096"),
)


@pytest.mark.parametrize("setting", IMPOSSIBLE, ids=str)
def test_each_cure_that_a_message_names_cures(setting: tuple[int, int, str]) -> None:
    customers, partners, *overrides = setting
    try:
        Agreement.of(config(customers, partners, *overrides))
    except InvalidConfig as error:
        told = error.reason
    else:
        pytest.fail("made to be impossible")
    cures = re.findall(r"[a-z_.]+=[\w.]+", told)
    assert cures, told
    for cure in cures:
        key = cure.partition("=")[0]
        kept = [one for one in overrides if not one.startswith(f"{key}=")]
        Agreement.of(config(customers, partners, *kept, cure))


def test_more_partners_than_the_cipher_has_room_for_name_a_width_that_does() -> None:
    with pytest.raises(InvalidConfig, match=r"encryption\.bits=\d+$") as caught:
        Agreement.of(config(10, 5000, "encryption.bits=32"))
    cure = caught.value.reason.rpartition("use ")[2]
    assert Agreement.of(config(10, 5000, cure)).parameters.bits == int(cure.partition("=")[2])


def test_what_no_data_could_cure_is_said_before_there_is_any() -> None:
    bare = composed("privacy.epsilon=0.001", "strategy.rounds=100000")
    with pytest.raises(InvalidConfig, match="with the smallest model and data") as caught:
        check_before_data(bare)
    for cure in re.findall(r"[a-z_.]+=[\w.]+", caught.value.reason):
        key = cure.partition("=")[0]
        kept = {"privacy.epsilon": "strategy.rounds=100000",
                "strategy.rounds": "privacy.epsilon=0.001"}[key]
        check_before_data(composed(kept, cure))
    for mode in MODES:
        check_before_data(composed(f"privacy={mode}"))


def test_the_start_of_a_run_says_what_values_weigh() -> None:
    small, large = (Agreement.of(config(count, 3)) for count in (500, 10**6))
    words = large.describe_width(16)
    assert f"{large.parameters.bits} bits (16 asked for" in words
    assert f"{update_bytes(large.layout('train')):,} bytes a round" in words
    assert "asked for" not in small.describe_width(16) and "cut" not in words
    bent = Agreement.of(config(800, 3))
    assert bent.training.region("update").whole and not bent.test.regions[0].whole
    assert "value of metric_model, metric_naive, 5" in bent.describe_width(16)
    wider = Agreement.of(config(800, 3, "encryption.bits=20"))  # what the words advise
    assert "cut" not in wider.describe_width(20)


def test_the_narrowest_width() -> None:
    def make(bits: int) -> int:
        tried.append(bits)
        if bits < 12:
            raise PlanImpossible("encryption.bits", "narrow", "wider", 12)
        return bits

    tried: list[int] = []
    assert narrowest(14, 20, make, lambda bits: False) == 14
    assert narrowest(8, 20, make, lambda bits: bits >= 17) == 17
    assert narrowest(8, 20, make, lambda bits: False) == 12
    assert tried == [14, 8, *range(12, 18), 8, *range(12, 21)]
    with pytest.raises(PlanImpossible):
        narrowest(8, 11, make, lambda bits: True)
