"""Sealed models: the operator forwards what it cannot read, and cannot exchange it either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from flwr.app import Message

import experiments.local_grid
from client.round_model import RoundModel
from client.session import Session
from client.site import Site
from conf.compose import to_json
from encryption.accumulator import digest, make_accumulator
from encryption.types import OpenedSum, OpeningClaim, RoundId
from experiments.cli import main
from experiments.local_grid import LocalGrid
from experiments.simulate import prepared, simulate
from keyholder.sealer import Sealer
from learning.models import get_flat, set_flat
from learning.registry import make_model, shared_start
from strategies import layout
from strategies.agreement import Agreement
from strategies.global_model import model_digest
from strategies.layout import OpenReply, PartnerRefused, parse_open_reply, parse_train_reply
from strategies.optimiser import ServerState, step

RUN = "ab" * 16
SEALED = {"opening": "sealed"}
QUIET = {"name": "none"}


def _artifact(result, folder: Path) -> Path:  # type: ignore[no-untyped-def]
    client = mlflow.MlflowClient(result.tracking_uri)
    return Path(client.download_artifacts(
        result.mlflow_run_id, "sealed/model.veilsum", str(folder)))


def _exported(path: Path) -> np.ndarray:
    loaded = torch.load(path, weights_only=True)
    return torch.cat([value.flatten() for value in loaded["state_dict"].values()]).numpy()


def _built_as_documented(path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Parameters of what the README's lines make of model.pt."""
    readme = Path(__file__).resolve().parents[2] / "README.md"
    lines = readme.read_text().partition("## Using a model")[2].partition("```python\n")[2]
    scope: dict[str, torch.nn.Module] = {}
    monkeypatch.chdir(path.parent)
    exec(lines.partition("```")[0], scope)
    return torch.cat([p.detach().flatten() for p in scope["model"].parameters()]).numpy()


def _registered(result) -> np.ndarray:  # type: ignore[no-untyped-def]
    mlflow.set_tracking_uri(result.tracking_uri)
    versions = mlflow.MlflowClient().search_model_versions(f"run_id='{result.mlflow_run_id}'")
    model = mlflow.pytorch.load_model(f"models:/{versions[0].name}/{versions[0].version}")
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


@pytest.mark.parametrize(("strategy", "privacy", "encryption"), [
    ({"name": "fedavg"}, QUIET, {}), ({"name": "fedadam"}, QUIET, {}),
    ({"name": "fedprox", "proximal": 0.5}, {**QUIET, "contribution": "training"}, {}),
    ({"name": "fedavg"}, QUIET, {"bits": 4, "feedback": True}),
], ids=["fedavg", "fedadam", "fedprox", "feedback"])
def test_sealed_equals_revealed_bit_for_bit(  # type: ignore[no-untyped-def]
        configure, tmp_path: Path, capsys, monkeypatch, strategy, privacy, encryption) -> None:
    """Same seeds, no noise: the exported model is the one that the operator would have seen."""
    groups = {"privacy": privacy, "strategy": strategy}
    revealed = simulate(configure(**groups, encryption=encryption))
    sealed = simulate(configure(**groups, encryption=SEALED | encryption,
                                federation={"folder": str(tmp_path / "kept")}))
    key, out = str(tmp_path / "kept" / "federation.key"), tmp_path / "model.pt"
    artifact = str(_artifact(sealed, tmp_path))
    assert main(["export", artifact, "--key", key, "--out", str(out)]) == 0
    assert "the final model after 3 of 3 rounds" in capsys.readouterr().out
    np.testing.assert_array_equal(_exported(out), _registered(revealed))
    np.testing.assert_array_equal(_built_as_documented(out, monkeypatch), _exported(out))
    assert np.abs(_exported(out)).max() > 0
    assert sealed.released == revealed.released
    assert sealed.comparisons == revealed.comparisons
    assert main(["export", artifact, "--key", key, "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


@dataclass
class _Seen:
    """Every byte that the operator was sent or sent itself."""

    received: list[bytes] = field(default_factory=list)

    @contextmanager
    def watch(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        seen = self

        class Watched(LocalGrid):
            def push_messages(self, messages):  # type: ignore[no-untyped-def]
                messages = list(messages)
                seen.take(messages)
                return super().push_messages(messages)

            def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
                found = super().pull_messages(message_ids)
                seen.take(found)
                return found

        with monkeypatch.context() as patch:
            patch.setattr(experiments.local_grid, "LocalGrid", Watched)
            yield

    def take(self, messages: list[Message]) -> None:
        for message in messages:
            for name in ("body", "sealed"):
                if message.has_content() and name in message.content:
                    self.received += [a.data for a in message.content[name].values()]


@pytest.mark.parametrize("opening", ["sealed", "revealed"])
def test_the_operator_never_holds_a_model(  # type: ignore[no-untyped-def]
        configure, tmp_path: Path, monkeypatch, opening: str) -> None:
    """Neither in a message nor in what MLflow keeps; revealed, the same search finds it in what
    MLflow keeps, and what it was sent leads to it."""
    seen, folder = _Seen(), tmp_path / "kept"
    config = configure(privacy=QUIET, encryption={"opening": opening},
                       federation={"folder": str(folder)})
    with seen.watch(monkeypatch):
        result = simulate(config)
    if opening == "sealed":
        assert main(["export", str(_artifact(result, tmp_path)), "--key",
                     str(folder / "federation.key"), "--out", str(tmp_path / "m.pt")]) == 0
        final = _exported(tmp_path / "m.pt")
    else:
        final = _registered(result)
    files = [path.read_bytes() for path in tmp_path.rglob("mlartifacts/**/*") if path.is_file()]
    files.append((tmp_path / "mlflow.db").read_bytes())
    weights = [weight.tobytes() for weight in final.astype("<f4") if weight]
    assert len(weights) > 10
    kept = sum(weight in content for weight in weights for content in files)
    # A float64 whose float32 is the final model's weight is no coincidence either.
    sent = [np.frombuffer(data, "<f8").astype("<f4") for data in seen.received
            if len(data) == 8 * final.size]
    assert not any(np.array_equal(values, final) for values in sent)
    stepped = _stepped(prepared(config, folder), seen.received)
    assert bool(kept) == np.array_equal(stepped, final) == (opening == "revealed")


def _stepped(config, received: list[bytes]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The final model, where opened sums of whole rounds are among what was received."""
    agreement = Agreement.of(config)
    state = ServerState.start(shared_start(config))
    for data in received:
        if len(data) == 8 * agreement.training.total_size:
            opened = OpenedSum(np.frombuffer(data, "<i8").astype(np.int64), (0, 1, 2))
            state = step(state, agreement.mean_update(opened), config.strategy)
    return state.final.astype(np.float32)


def test_a_sealed_run_says_so_and_is_scored_at_its_end(  # type: ignore[no-untyped-def]
        configure, tmp_path: Path, capsys) -> None:
    result = simulate(configure(privacy={"epsilon": 100.0}, encryption=SEALED))
    first = capsys.readouterr().err.splitlines()[0]
    assert "nobody can open" in first and "federation.folder=FOLDER keeps the key" in first
    assert result.opening == "sealed" and {"all", "held out"} <= {
        row.partner for row in result.comparisons}
    client = mlflow.MlflowClient(result.tracking_uri)
    run = client.get_run(result.mlflow_run_id)
    assert run.data.tags["opening"] == "sealed" and "ciphertext" in run.data.tags["model"]
    assert "round r began with" in run.data.tags["validation"]
    steps = [point.step for point in client.get_metric_history(result.mlflow_run_id, "val/auc")]
    assert steps == [1, 2, 3]
    exact = client.get_metric_history(result.mlflow_run_id, "oracle/val/auc")
    assert [point.step for point in exact] == [3]
    assert not client.search_model_versions(f"run_id='{result.mlflow_run_id}'")
    assert run.data.metrics["encryption/download_bytes_per_parameter"] > 0


@dataclass
class _Server:
    """An operator that may cheat, over real clients."""

    federation: object

    def train(self, number: int, models: dict[str, bytes] | bytes) -> tuple[bytes, ...]:
        config = self.federation.config
        total = make_accumulator(Agreement.of(config).layout("train"), number)
        for index, partner in enumerate(config.federation.partners):
            model = models if isinstance(models, bytes) else models[partner]
            reply = parse_train_reply(self.federation.train_from(partner, number, model))
            total.fold(reply.blocks, index)
        return total.finish()

    def open(self, number: int, blocks: tuple[bytes, ...], sent: bytes, state: bytes,
             opener: str = "east") -> OpenReply:
        claim = OpeningClaim(RoundId(RUN, number), (0, 1, 2), digest(blocks))
        request = layout.OpenRequest(claim, "train", self.federation.parameters.fingerprint,
                                     blocks, model_digest(sent), state)
        reply = self.federation.send(opener, layout.open_request(request), layout.OPEN)
        return parse_open_reply(reply, Agreement.of(self.federation.config).leaving_size("train"))

    def round(self, number: int, model: bytes = b"", state: bytes = b"") -> OpenReply:
        return self.open(number, self.train(number, model), model, state)


@pytest.fixture
def server(configure, clients) -> Iterator[_Server]:  # type: ignore[no-untyped-def]
    with clients(configure(encryption=SEALED, strategy={"rounds": 5})) as federation:
        yield _Server(federation)


def test_asked_again_the_opener_gives_the_same_bytes(server: _Server) -> None:
    blocks = server.train(1, b"")
    first, again = (server.open(1, blocks, b"", b"") for _ in range(2))
    assert (first.model, first.state) == (again.model, again.state) and first.model
    np.testing.assert_array_equal(first.opened.values, again.opened.values)


def _refusal(server: _Server, partner: str, number: int, model: object, run: str = RUN) -> str:
    with pytest.raises(PartnerRefused) as caught:
        parse_train_reply(server.federation.train_from(partner, number, model, run=run))
    return caught.value.reason


def test_a_model_of_another_round_or_run_is_refused_before_anything_is_spent(
        server: _Server, tmp_path: Path) -> None:
    second = server.round(1)
    third = server.round(2, second.model, second.state)
    ledger = tmp_path / "state" / "west" / "ledger.jsonl"
    before = ledger.read_bytes()
    assert _refusal(server, "west", 3, second.model) == "SealBroken"
    assert _refusal(server, "west", 3, third.state) == "SealBroken"
    assert _refusal(server, "west", 4, third.model) == "SealBroken"
    assert _refusal(server, "west", 2, second.model, run="cd" * 16) == "SealBroken"
    assert _refusal(server, "west", 3, third.model[:-1]) == "SealBroken"
    assert _refusal(server, "west", 3, b"") == "SealBroken"
    assert _refusal(server, "west", 1, third.model, run="cd" * 16) == "Refused"
    stepped = server.federation.ask("west", server.federation.request(3))
    with pytest.raises(PartnerRefused, match="Refused"):
        parse_train_reply(stepped)
    assert ledger.read_bytes() == before
    assert parse_train_reply(server.federation.train_from("west", 3, third.model)).blocks


def test_the_opener_steps_only_from_the_model_that_was_trained_from(server: _Server) -> None:
    second = server.round(1)
    third = server.round(2, second.model, second.state)
    blocks = server.train(3, third.model)
    for sent, state in ((second.model, second.state), (third.model, second.state),
                        (second.model, third.state), (third.model, b""), (b"", third.state),
                        (third.model, third.model)):
        with pytest.raises(PartnerRefused, match=r"SealBroken|Refused"):
            server.open(3, blocks, sent, state)
    # None of it opened the sum or retired the key.
    assert server.open(3, blocks, third.model, third.state).model


def test_only_metrics_leave_the_opener(server: _Server) -> None:
    reply = server.round(1)
    config = server.federation.config
    agreement = Agreement.of(config)
    assert reply.opened.values.size == agreement.training.total_size - get_flat(
        make_model(config)).size
    sums = agreement.dequantise("train", reply.opened.values)
    assert set(sums) == {"metric", "loss"}


def test_partners_with_different_models_show_in_the_tags(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """A partner that works from another model, whatever brought it there, is in no sum that
    opens."""
    with clients(configure()) as federation:
        agreement = Agreement.of(federation.config)
        total = make_accumulator(agreement.layout("train"), 1)
        for index, partner in enumerate(federation.config.federation.partners):
            reply = federation.train(partner, 1)
            if partner == "west":
                site = Site.from_node_config(federation.nodes["west"])
                session = Session.start(to_json(federation.config), site)
                sealer = Sealer(session.key, agreement.layout("train"), index, 1)
                values = np.zeros(agreement.layout("train").values, np.int64)
                bound = session._bind(RoundId(RUN, 1))
                other = RoundModel(np.zeros(0), model_digest(np.full(federation.size, 0.5)))
                blocks = sealer.seal(values, other.tagged(bound))
            else:
                blocks = parse_train_reply(reply).blocks
            total.fold(blocks, index)
        blocks = total.finish()
        claim = OpeningClaim(RoundId(RUN, 1), (0, 1, 2), digest(blocks))
        request = layout.OpenRequest(claim, "train", federation.parameters.fingerprint, blocks,
                                     federation.start_digest)
        with pytest.raises(PartnerRefused, match="TagMismatch"):
            parse_open_reply(federation.send("east", layout.open_request(request), layout.OPEN),
                             agreement.leaving_size("train"))
        with pytest.raises(PartnerRefused, match="KeyRetired"):
            parse_open_reply(federation.send("east", layout.open_request(request), layout.OPEN),
                             agreement.leaving_size("train"))


@pytest.mark.parametrize(("spoil", "reason"), [
    ("key", "another key"), ("truncated", "changed"), ("state", "not a sealed"),
    ("missing", "cannot be read"), ("folder", "no folder"), ("keyless", "no key file")])
def test_a_mistaken_export_says_what_is_wrong(  # type: ignore[no-untyped-def]
        server: _Server, tmp_path: Path, capsys, spoil: str, reason: str) -> None:
    from encryption.parameters import choose_parameters
    from keyholder.keys import SharedKey

    sealed, key, out = tmp_path / "m.veilsum", tmp_path / "federation.key", tmp_path / "m.pt"
    content = server.round(1).model
    sealed.write_bytes(content[:-3] if spoil == "truncated" else content)
    if spoil == "state":
        sealed.write_bytes(b"something else")
    if spoil == "key":
        key = tmp_path / "other.key"
        SharedKey.generate(choose_parameters("shared_key", 3, 16)).save(key)
    sealed = tmp_path / "nothing" if spoil == "missing" else sealed
    out = tmp_path / "none" / "m.pt" if spoil == "folder" else out
    key = tmp_path / "none.key" if spoil == "keyless" else key
    assert main(["export", str(sealed), "--key", str(key), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert spoil != "state" or "files of a checkpoint folder are not for export" in told
    assert not out.exists() and not list(tmp_path.glob(".export-*"))


def test_sealed_without_a_cipher_is_refused(configure) -> None:  # type: ignore[no-untyped-def]
    from conf.schema import InvalidConfig

    with pytest.raises(InvalidConfig, match=r"encryption\.opening.*plaintext"):
        configure(encryption={"name": "plaintext", **SEALED})


def test_a_model_that_diverged_is_not_exported(configure, server: _Server) -> None:  # type: ignore[no-untyped-def]
    from client.export import UnusableModel, open_model
    from client.sealed_run import _description, pack_model
    from keyholder.keys import SharedKey
    from keyholder.vault import Kind, Vault, run_hash

    config = server.federation.config
    key = SharedKey.load(server.federation.nodes["east"]["key-path"])
    size = get_flat(make_model(config)).size
    vault = Vault(key, run_hash("r"))

    def seal(value: float, **changes: object) -> bytes:
        about = {**_description(config), **changes}
        return vault.seal(Kind.MODEL, 2, bytes(32), pack_model(about, np.full(size, value)))

    module = open_model(key, seal(0.5)).module
    expected = make_model(config)
    set_flat(expected, np.full(size, 0.5))
    assert get_flat(module).tolist() == get_flat(expected).tolist()
    for sealed in (seal(float("nan")), seal(1.0, parameters=[]), seal(1.0, model={"name": 1}),
                   vault.seal(Kind.STATE, 2, bytes(32), b"x")):
        with pytest.raises(UnusableModel):
            open_model(key, sealed)
