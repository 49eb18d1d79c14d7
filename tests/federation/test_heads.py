"""Heads stay at the partners, and cost the privacy that a shared parameter costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import mlflow
import numpy as np
import pytest
import torch
from flwr.app import Message

import experiments.local_grid
from client.heads import start_head
from client.session import Session, read_heads
from client.site import Site
from conf.compose import to_json
from conf.schema import InvalidConfig
from encryption.accumulator import digest, make_accumulator
from encryption.types import OpeningClaim, RoundId
from experiments.in_the_open import Case
from experiments.local_grid import LocalGrid
from experiments.simulate import simulate
from keyholder.refusals import OpeningRefused
from learning.customers import CustomerParts
from learning.registry import head_mask, make_model, shared_start
from privacy.noise import NoiseSource
from strategies import layout
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.layout import parse_train_reply
from strategies.optimiser import ServerState

RUN = "ab" * 16
QUIET = {"name": "none"}
BIAS = {"head": "bias"}
LAST = {"name": "mlp", "hidden": 4, "head": "last_layer"}


def _heads(federation, number: int, run: str = RUN) -> dict[str, ServerState]:  # type: ignore[no-untyped-def]
    return read_heads(federation.config, federation.nodes)(run, number)


def _train(federation, partner: str, number: int, run: str = RUN):  # type: ignore[no-untyped-def]
    return parse_train_reply(federation.train(partner, number, run=run))


def test_a_head_moves_once_a_round_and_each_partner_has_its_own(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure(model=BIAS, privacy=QUIET)) as federation:
        start = start_head(federation.config).model
        assert all(np.array_equal(head.model, start) for head in _heads(federation, 0).values())
        first = _train(federation, "east", 1)
        moved = _heads(federation, 1)["east"].model
        assert moved.shape == (1,) and moved != start
        assert _train(federation, "east", 1).blocks == first.blocks
        assert _heads(federation, 1)["east"].model == moved
        _train(federation, "west", 1)
        heads = _heads(federation, 1)
        assert heads["west"].model != moved and heads["north"].model == start


def test_a_client_that_restarts_goes_on_with_its_head(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """One process for all rounds, or a new one for each: the same head, the same update."""
    with clients(configure(model=LAST, privacy=QUIET)) as federation:
        config, ends = federation.config, []
        site = Site.from_node_config(federation.nodes["east"])
        mask = head_mask(config)
        for run, restarts in (("11" * 16, False), ("22" * 16, True)):
            session = Session.start(to_json(config), site)
            for number in (1, 2, 3):
                session = Session.start(to_json(config), site) if restarts else session
                session.contribute(federation.request(number, run=run))
            ends.append(_heads(federation, 3, run)["east"])
        assert ends[0].averaged == 2 and ends[0].model.size == mask.size == 5
        np.testing.assert_array_equal(ends[0].model, ends[1].model)
        np.testing.assert_array_equal(ends[0].final, ends[1].final)


def test_a_head_that_was_lost_is_not_begun_anew_in_silence(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    with clients(configure(model=BIAS, privacy=QUIET)) as federation:
        _train(federation, "east", 1)
        (folder,) = (tmp_path / "state" / "east" / "heads").iterdir()
        folder.rename(tmp_path / "elsewhere")
        refused = federation.train("east", 2)
        assert refused.content["head"]["refused"] == "HeadDamaged"
        (tmp_path / "elsewhere").rename(folder)
        _train(federation, "east", 2)
        assert _heads(federation, 2)["east"].round == 2


def test_a_head_is_noised_as_the_plan_says(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """Fitted to the same customers twice, it differs by the noise; without it, not at all."""
    for privacy, noised in (({"epsilon": 3.0}, True), (QUIET, False)):
        with clients(configure(model=LAST, privacy=privacy)) as federation:
            runs = ("11" * 16, "22" * 16)
            for run in runs:
                _train(federation, "east", 1, run)
            one, other = (_heads(federation, 1, run)["east"].model for run in runs)
            assert np.all(one != other) == noised and np.any(one != other) == noised
        for path in Path().rglob("*federation.key"):
            path.unlink()


class Silent(NoiseSource):
    """No noise, and rounding to the nearest: what is left is the sum."""

    def discrete_gaussian(self, std_steps: float, size: int) -> np.ndarray:
        return np.zeros(size, np.int64)

    def uniform(self, size: int) -> np.ndarray:
        return np.full(size, 0.5)


@pytest.mark.parametrize("privacy", [
    {}, {"contribution": "training"}], ids=["gradient", "training"])
def test_a_customer_is_clipped_over_shared_part_and_head_together(  # type: ignore[no-untyped-def]
        configure, clients, monkeypatch, privacy) -> None:
    """What one customer changes in the opened and the kept sum, taken together, is C at most, and
    for a customer beyond it exactly C: clipped apart it would be C times the root of two."""
    import client.session as session_module

    clip, kept = 1e-3, []
    monkeypatch.setattr(session_module, "NoiseSource", Silent)
    monkeypatch.setattr(session_module, "step_head", lambda state, number, total, *rest: (
        kept.append(total), replace(state, round=number))[1])
    with clients(configure(model=LAST, privacy={**privacy, "clip_norm": clip},
                           encryption={"bits": 20})) as federation:
        session = Session.start(to_json(federation.config),
                                Site.from_node_config(federation.nodes["east"]))
        plan = session.agreement.training
        everyone = session.data.train.whole()

        def both(rows: np.ndarray, number: int) -> np.ndarray:
            data = replace(session.data, train=CustomerParts.of(everyone.take(rows)))
            values = replace(session, data=data)._values(
                "train", shared_start(federation.config), RoundId(RUN, number))
            opened = plan.dequantise(values)["update"]
            return np.concatenate([opened, kept[-1]])

        rows = np.arange(len(everyone))
        change = both(rows, 1) - both(rows[:-1], 2)  # the last one has the most examples
        parts = np.split(change, [head_mask(federation.config).own.size - kept[-1].size])
        assert min(np.linalg.norm(part) for part in parts) > 0.1 * clip
        slack = plan.region("update").step * np.sqrt(change.size)
        assert slack < 0.02 * clip
        assert abs(np.linalg.norm(change) - clip) < slack


def test_noise_for_one_head_is_not_opened_under_another(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """A server cannot switch heads on or off for one partner: tags commit to the configuration."""
    with clients(configure(model=BIAS)) as federation:
        config = federation.config
        shared = replace(config, model=replace(config.model, head="shared"))
        assert Agreement.of(config).layout("train") != Agreement.of(shared).layout("train")
        other = replace(config, strategy=replace(config.strategy, head_learning_rate=9.0))
        accumulator = make_accumulator(Agreement.of(config).layout("train"))
        for partner in ("east", "north"):
            accumulator.fold(_train(federation, partner, 1).blocks)
        west = Session.start(to_json(other), Site.from_node_config(federation.nodes["west"]))
        accumulator.fold(west.contribute(federation.request(1)).blocks)
        blocks = accumulator.finish()
        claim = OpeningClaim(RoundId(RUN, 1), (0, 1, 2), digest(blocks))
        opener = Session.start(to_json(config), Site.from_node_config(federation.nodes["east"]))
        with pytest.raises(OpeningRefused, match="tag"):
            opener.open_sum(layout.OpenRequest(
                claim, "train", federation.parameters.fingerprint, blocks,
                model_digest(shared_start(config))))


class Watched(LocalGrid):
    """Keeps every byte that the operator sends or is sent."""

    seen: ClassVar[list[bytes]] = []

    def push_messages(self, messages):  # type: ignore[no-untyped-def]
        messages = list(messages)
        self._take(messages)
        return super().push_messages(messages)

    def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
        found = super().pull_messages(message_ids)
        self._take(found)
        return found

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            for record in message.content.values() if message.has_content() else ():
                self.seen += [array.data for array in record.values() if hasattr(array, "data")]


@pytest.mark.parametrize("opening", ["revealed", "sealed"])
def test_a_head_is_in_no_message_and_no_record(  # type: ignore[no-untyped-def]
        configure, tmp_path: Path, monkeypatch, opening: str) -> None:
    """Neither as float64 nor as float32; the same search finds the shared part where it is
    revealed. At its site the partner finds its whole model."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(Watched, "seen", [])
    monkeypatch.setattr(experiments.local_grid, "LocalGrid", Watched)
    config = configure(model=LAST, privacy=QUIET, encryption={"opening": opening},
                       federation={"folder": str(folder)})
    result = simulate(config)
    records = [path.read_bytes() for path in tmp_path.rglob("mlartifacts/**/*") if path.is_file()]
    records.append((tmp_path / "mlflow.db").read_bytes())
    heads, shared = [], []
    for path in sorted(folder.rglob("*.head")):
        heads += list(np.frombuffer(path.read_bytes()[-8 * 4 * 5:], "<f8"))
    models = sorted(folder.rglob("model.pt"))
    assert len(models) == 3 and len(heads) == 3 * 2 * 4 * 5
    for path in models:
        state = torch.load(path, weights_only=True)
        assert set(state) == set(make_model(config).state_dict())
        shared += state["layers.0.weight"].flatten().tolist()
    start = set(start_head(config).model) | {0.0}
    found = {name: sum(np.array(value, kind).tobytes() in content
                       for value in values if value not in start
                       for kind in ("<f8", "<f4") for content in (*Watched.seen, *records))
             for name, values in (("heads", heads), ("shared", shared))}
    assert len(Watched.seen) > 20 and found["heads"] == 0
    assert (found["shared"] > 0) == (opening == "revealed")
    assert {"all", "held out"} <= {row.partner for row in result.comparisons}


def test_sealed_equals_revealed_and_the_study_equals_both(configure) -> None:  # type: ignore[no-untyped-def]
    groups = {"privacy": QUIET, "model": LAST}
    revealed = simulate(configure(**groups))
    sealed = simulate(configure(**groups, encryption={"opening": "sealed"}))
    assert sealed.released == revealed.released
    assert sealed.comparisons == revealed.comparisons
    case = Case.of(configure(**groups))
    models = case.train_each(np.random.default_rng(0))
    everyone = next(row for row in revealed.comparisons if row.partner == "all")
    assert case.value(models.__getitem__, "test") == pytest.approx(
        everyone.federated.value, abs=2e-3)
    with pytest.raises(InvalidConfig, match=r"model\.head"):
        case.train(np.random.default_rng(0))


@pytest.mark.parametrize("privacy", [
    {"name": "noise_shares"}, {"name": "local_dp", "local_steps": 1, "sample_rate": 1.0},
    {"contribution": "training"}], ids=["shares", "local_dp", "training"])
def test_every_privacy_trains_heads_for_the_same_epsilon(configure, privacy) -> None:  # type: ignore[no-untyped-def]
    """What is recorded is named as what it is: a model with the public start for a head."""
    config = configure(model=LAST, privacy=privacy)
    result = simulate(config)
    assert 2.9 < result.epsilon <= 3.0 * (1 + 1e-8)
    client = mlflow.MlflowClient(result.tracking_uri)
    run = client.get_run(result.mlflow_run_id)
    assert "own" in run.data.tags["head"]
    mlflow.set_tracking_uri(result.tracking_uri)
    model = mlflow.pytorch.load_model("models:/veilsum-retail_repeat-mlp-without-last_layer/1")
    vector = torch.cat([value.detach().flatten() for value in model.parameters()]).numpy()
    mask = head_mask(config)
    np.testing.assert_array_equal(mask.head(vector), start_head(config).model.astype(np.float32))
    assert np.any(mask.shared(vector) != shared_start(config).astype(np.float32))
