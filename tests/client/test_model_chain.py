"""What a site keeps of a run's models, and of the sets that were opened: whole, damaged, lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.model_chain import MODEL_BOUND, ModelChain, ModelOutOfBounds, check_bounds
from client.opened_sets import OpenedSets
from conf.schema import Config, FederationConfig, PrivacyConfig, StrategyConfig, TaskConfig
from encryption.types import OpenedSum, RoundId
from keyholder.keys import SharedKey
from keyholder.receipts import vouch
from keyholder.refusals import AnotherSetOnThisModel
from learning.registry import shared_start
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.optimiser import ServerState, step
from strategies.receipts import Receipt

PARTNERS = ["a", "b", "c"]
CONFIG = Config(
    task=TaskConfig(categories=["MILK"]), privacy=PrivacyConfig(name="none"),
    strategy=StrategyConfig(name="fedadam", rounds=6, quorum=2),
    federation=FederationConfig(partners=PARTNERS, customers=dict.fromkeys(PARTNERS, 10)))


@pytest.fixture(scope="module")
def run() -> tuple[Agreement, SharedKey, list[Receipt], list[ServerState]]:
    """An honest run of fedadam, with its tail average, over sets that change."""
    agreement = Agreement.of(CONFIG)
    key = SharedKey.generate(agreement.parameters)
    rng, receipts = np.random.default_rng(0), []
    states = [ServerState.start(shared_start(CONFIG))]
    for number in range(1, 7):
        members = (0, 1, 2) if number % 2 else (0, 2)
        values = rng.integers(-500, 500, agreement.training.total_size)
        mac = vouch(key, RoundId("run", number), "train", members,
                    model_digest(states[-1].model), values)
        receipts.append(Receipt(number, members, values, mac))
        states.append(step(states[-1], agreement.mean_update(OpenedSum(values, members)),
                           CONFIG.strategy))
    return agreement, key, receipts, states


def _chain(run, folder: Path) -> ModelChain:  # type: ignore[no-untyped-def]
    return ModelChain(CONFIG, run[0], run[1], "run", folder)


def _same(one: ServerState, other: ServerState) -> bool:
    return one.packed() == other.packed()


def test_a_site_steps_to_the_very_bits_of_the_server(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Round by round, in one go, or in between: optimiser's moments and tail average included."""
    _, _, receipts, states = run
    for stops in ((1, 2, 3, 4, 5, 6, 7), (7,), (3, 4, 7)):
        folder = tmp_path / str(stops)
        for number in stops:
            held = _chain(run, folder).newest
            state = _chain(run, folder).before(number, receipts[held : number - 1])
            assert _same(state, states[number - 1])
            assert _chain(run, folder).newest == number - 1
    assert states[6].averaged and not np.array_equal(states[6].model, states[6].final)


@pytest.mark.parametrize("harm", [lambda stored: stored[:-1], lambda stored: b"", lambda stored:
                                  stored[:60] + bytes([stored[60] ^ 1]) + stored[61:]])
def test_a_damaged_model_costs_receipts_and_nothing_else(run, tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    _, _, receipts, states = run
    for number in (4, 5):
        _chain(run, tmp_path).before(number, receipts[: number - 1])
    assert sorted(path.stem for path in tmp_path.rglob("*.model")) == ["000000003", "000000004"]
    newest = next(tmp_path.rglob("000000004.model"))
    newest.write_bytes(harm(newest.read_bytes()))
    assert _chain(run, tmp_path).newest == 3
    assert _same(_chain(run, tmp_path).before(5, receipts[3:4]), states[4])
    newest.rename(newest.with_name("000000005.model"))  # under another round's name
    assert _chain(run, tmp_path).newest == 3


def test_a_server_that_went_back_is_followed(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, receipts, states = run
    _chain(run, tmp_path).before(7, receipts)
    for number in (3, 4):
        assert _same(_chain(run, tmp_path).before(number, receipts[: number - 1]),
                     states[number - 1])


def test_a_model_at_the_bound_is_taken_and_none_beyond() -> None:
    check_bounds(np.array([MODEL_BOUND, -MODEL_BOUND, 0.0, 5e-324]))
    for value in (np.nextafter(MODEL_BOUND, np.inf), -1e7, np.inf, -np.inf, np.nan, 3e38, 1e300):
        with pytest.raises(ModelOutOfBounds):
            check_bounds(np.array([0.0, value]))


def test_sets_are_remembered_by_model_kind_and_key(tmp_path: Path) -> None:
    model = np.linspace(1, 2, 5)

    def about(names: str, **change: object) -> None:
        given = {"folder": tmp_path, "key_id": "k", "admitted": 0, "model": model,
                 "kind": "train"} | change
        sets = OpenedSets(given["folder"], given["key_id"], given["admitted"])  # type: ignore[arg-type]
        sets.about(given["model"], given["kind"], "set", list(names)).note()  # type: ignore[arg-type]

    about("ab")
    about("ba")
    for change in ({"model": model + 1e-3}, {"kind": "test"}, {"key_id": "other"}):
        about("ac", **change)
    with pytest.raises(AnotherSetOnThisModel):
        about("ac", model=model + 1e-12)  # the same, as it is trained from
    with pytest.raises(AnotherSetOnThisModel):
        about("ac")
    about("ac", admitted=1)
    for names in ("ab", "ac"):
        about(names)
    with pytest.raises(AnotherSetOnThisModel):
        about("bc", admitted=1)


def test_a_damaged_record_of_sets_admits_nothing(tmp_path: Path) -> None:
    rule = OpenedSets(tmp_path, "k").about(np.zeros(3), "train", "set", ["a"])
    rule.note()
    rule.path.write_bytes(rule.path.read_bytes()[:-1])
    with pytest.raises(AnotherSetOnThisModel, match="damaged"):
        rule.check()
