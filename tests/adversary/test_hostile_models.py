"""A server that wants partners to work from a model of its own choosing, or one model in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from client.model_chain import MODEL_BOUND, ModelNotVouched, ModelOutOfBounds, ReceiptsMissing
from client.session import _bound_run
from client.site import Site
from conf.compose import agreed_digest, to_json
from encryption.accumulator import make_accumulator
from encryption.types import OpenedSum, Refused, RoundId
from keyholder.keys import SharedKey
from keyholder.receipts import vouch
from keyholder.refusals import OpeningRefused
from strategies import layout
from strategies.global_model import model_digest
from strategies.optimiser import step
from strategies.receipts import Receipt
from tests.adversary.operator import Run, Sites, worked_from

EVERYBODY = ("east", "north", "west")


# --- another model ----------------------------------------------------------------------------


def _forgeries(run: Run, key: SharedKey, others: dict[str, Run]) -> Iterator[tuple[str, Receipt]]:
    """What a server could show for round 1 instead of ``run.receipts[0]``, without the key, and
    what only a seal for something else would allow."""
    true = run.receipts[0]
    bound = run.any._bind(RoundId(run.name, 1))
    start = model_digest(run.model(1))

    def sealed(kind: str = "train", members: tuple[int, ...] = true.members,
               model: bytes = start, number: int = 1, integers: np.ndarray = true.integers
               ) -> bytes:
        return vouch(key, RoundId(bound.run, number), kind, members, model, integers)

    for place in (0, len(true.integers) // 2, len(true.integers) - 1):
        altered = true.integers.copy()
        altered[place] += 1
        yield f"integer {place}", replace(true, integers=altered)
    yield "all zero", replace(true, integers=np.zeros_like(true.integers))
    yield "truncated", replace(true, integers=true.integers[:-1])
    yield "longer", replace(true, integers=np.append(true.integers, 0))
    yield "nothing in it", replace(true, integers=true.integers[:0])
    yield "mac", replace(true, mac=bytes([true.mac[0] ^ 1]) + true.mac[1:])
    yield "no mac", replace(true, mac=bytes(32))
    for members in ((0, 1), (0,), (1, 2), (0, 1, 2, 3), (0, 1, 3), (7,)):
        yield f"set {members}", replace(true, members=members)
        yield f"set {members}, sealed", replace(true, members=members, mac=sealed(members=members))
    yield "kind", replace(true, mac=sealed("test"))
    yield "model", replace(true, mac=sealed(model=model_digest(run.model(2))))
    yield "round", replace(true, mac=sealed(number=2))
    short = true.integers[:-1]
    yield "another size, sealed", replace(true, integers=short, mac=sealed(integers=short))
    for name, other in others.items():
        yield name, other.receipts[0]
    yield "the second round's", replace(run.receipts[1], round=1)


def test_no_field_of_a_request_brings_another_model(  # type: ignore[no-untyped-def]
        sites, monkeypatch) -> None:
    """Each is refused by name, before anything is spent; then the honest request is answered."""
    places = sites(strategy={"rounds": 4, "quorum": 3})
    run = places.begin("11" * 8)
    others = {
        "another run": places.begin("22" * 8),
        "another configuration": places.begin(run.name, replace(
            places.config, strategy=replace(places.config.strategy, learning_rate=0.123)))}
    for one in (run, *others.values()):
        one.round()
    run.round()
    heard: list[np.ndarray] = []
    worked_from(monkeypatch, heard.append)
    west, before = run.sessions["west"], places.ledger("west")

    for name, forged in _forgeries(run, west.key, others):
        for told in (run.model(3), run.model(1), run.model(2)):
            with pytest.raises(ModelNotVouched):
                # The folder is empty: what the site stepped before does not help it here.
                _forget(places, "west")
                west.contribute(run.request(
                    3, receipts=[forged, run.receipts[1]], told=model_digest(told)))
            assert not heard, name
    first, second = run.receipts
    for receipts in ((), (first,), (second,), (first, replace(second, round=3)),
                     (replace(second, round=1), replace(first, round=2))):
        _forget(places, "west")
        with pytest.raises(ModelNotVouched):
            west.contribute(run.request(3, receipts=receipts))
    for number in (1, 2):  # an older model again, by leaving its round out
        with pytest.raises(ModelNotVouched):
            west.contribute(run.request(3, receipts=run.receipts[: number - 1],
                                        told=model_digest(run.model(number))))
    for told in (bytes(32), model_digest(np.full(run.model(1).size, 1e300)), model_digest(b"")):
        with pytest.raises(ModelNotVouched):
            west.contribute(run.request(3, told=told))
    with pytest.raises(Refused, match="form"):
        west.contribute(run.request(3, model=run.model(3).tobytes()))
    assert not heard and places.ledger("west") == before
    run.contribute("west", 3)
    assert np.array_equal(heard[0], run.model(3)) and places.ledger("west") != before


def _forget(places: Sites, partner: str) -> None:
    folder = Path(str(places.nodes[partner]["state-path"])) / "models"
    for path in folder.rglob("*.model"):
        path.unlink()


def test_the_start_model_is_not_had_again_by_omitting_receipts(sites) -> None:  # type: ignore[no-untyped-def]
    """At no round, whether the site holds the models before it or has lost them."""
    places = sites(strategy={"rounds": 4, "quorum": 2}, privacy={"name": "none"})
    run = places.begin("11" * 8)
    run.round()
    start = model_digest(run.model(1))
    for number in (2, 3, 4, 5):
        kind = "train" if number <= 4 else "test"
        for receipts in ((), run.receipts[:-1], run.receipts[: number - 1]):
            with pytest.raises(ModelNotVouched):
                run.sessions["west"].contribute(
                    run.request(number, kind, receipts=receipts, told=start))
        if kind == "train":
            run.round()
    assert run.contribute("west", 5, "test").blocks


def test_the_opener_believes_its_own_model(sites) -> None:  # type: ignore[no-untyped-def]
    """Another one, told or shown, opens nothing, and costs nobody a key."""
    places = sites(strategy={"rounds": 3})
    run = places.begin("11" * 8)
    run.round()
    blocks = run.collect(EVERYBODY, 2)
    forged = replace(run.receipts[0], integers=run.receipts[0].integers + 1)
    for changes in ({"model_digest": model_digest(run.model(1))}, {"receipts": ()},
                    {"receipts": (forged,)}, {"model_digest": bytes(32)}, {"state": b"sealed"}):
        _forget(places, "east")
        with pytest.raises(Refused) as caught:
            run.open(blocks, EVERYBODY, 2, **changes)
        assert not isinstance(caught.value, OpeningRefused)
    assert run.open(blocks, EVERYBODY, 2).mac


def test_a_forged_receipt_is_one_word_abroad_and_a_reason_at_home(  # type: ignore[no-untyped-def]
        configure, clients, caplog: pytest.LogCaptureFixture) -> None:
    with clients(configure()) as federation:
        layout.parse_train_reply(federation.train("east", 1))
        request = federation.request(2)
        (true,) = request.receipts
        for receipts, word in (((replace(true, mac=bytes(32)),), "ModelNotVouched"),
                               ((), "ReceiptsMissing")):
            reply = federation.ask("east", replace(request, receipts=receipts))
            assert dict(reply.content["head"]) == {
                "protocol": layout.PROTOCOL, "refused": word}
        assert "is not its opener's" in caplog.text and "did not send the receipts" in caplog.text
        layout.parse_train_reply(federation.ask("east", request))


@pytest.mark.parametrize("rate", [1e300, 1e12])
@pytest.mark.parametrize("opening", ["revealed", "sealed"])
def test_a_run_that_diverges_stops_before_it_spends(sites, opening: str, rate: float) -> None:  # type: ignore[no-untyped-def]
    """A server sets the learning rate, and so could reach any size of model by honest steps."""
    places = sites(strategy={"rounds": 3, "learning_rate": rate}, encryption={"opening": opening})
    run = places.begin("11" * 8)
    if opening == "revealed":
        run.round()
        assert not np.abs(run.model(2)).max() <= MODEL_BOUND
        request = run.request(2)
    else:
        start = run.request(1, told=model_digest(b""))
        blocks = _folded(run, start)
        reply = run.open(blocks, EVERYBODY, 1, model_digest=model_digest(b""))
        request = run.request(2, receipts=(), told=model_digest(reply.model), model=reply.model)
    before = places.ledger("west")
    with pytest.raises(ModelOutOfBounds, match=r"smaller strategy\.learning_rate"):
        run.sessions["west"].contribute(request)
    assert places.ledger("west") == before


def _folded(run: Run, request: layout.TrainRequest) -> tuple[bytes, ...]:
    total = make_accumulator(run.any.agreement.layout("train"), request.round_id.round)
    for index, session in enumerate(run.sessions.values()):
        total.fold(session.contribute(request).blocks, index)
    return total.finish()


def test_a_head_that_diverges_stops_before_it_spends(sites) -> None:  # type: ignore[no-untyped-def]
    places = sites(model={"head": "bias"}, privacy={"name": "none"},
                   strategy={"rounds": 3, "head_learning_rate": 1e12})
    run = places.begin("11" * 8)
    run.round()
    before = places.ledger("west")
    with pytest.raises(ModelOutOfBounds):
        run.contribute("west", 2)
    assert places.ledger("west") == before


# --- any sequence of requests -----------------------------------------------------------------


def test_whatever_is_asked_a_site_works_from_the_honest_chain(  # type: ignore[no-untyped-def]
        sites, monkeypatch, tmp_path: Path) -> None:
    """The machine plays the server over two runs at once: honest rounds, and requests put together
    from any receipts, rounds, kinds and digests that it has seen or made; it knows what each
    receipt would lead to, and names that. What a site works from is, to the bit, what the sums
    opened in that run and before that round lead to."""
    places = sites(strategy={"rounds": 3, "quorum": 2}, encryption={"name": "plaintext"})
    heard: list[np.ndarray] = []
    worked_from(monkeypatch, heard.append)
    names = itertools.count()

    class Server(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.runs = [places.begin(f"{next(names):016x}") for _ in range(2)]
            heard.clear()

        @rule(which=st.integers(0, 1))
        def honest(self, which: int) -> None:
            run = self.runs[which]
            if len(run.states) <= run.config.strategy.rounds:
                run.round()
                heard.clear()

        @rule(which=st.integers(0, 1), source=st.integers(0, 1), partner=st.sampled_from(EVERYBODY),
              change=st.sampled_from(("none", "integers", "members", "drop", "swap", "renumber")),
              tells=st.sampled_from(("led to", "led to", "start", "another")), lost=st.booleans(),
              data=st.data())
        def ask(self, which: int, source: int, partner: str, change: str, tells: str, lost: bool,
                data: st.DataObject) -> None:
            run = self.runs[which]
            shown = list(self.runs[source].receipts)
            number = data.draw(st.integers(1, len(shown) + 1))
            kind = data.draw(st.sampled_from(("test", "train"))) if number == 4 else "train"
            shown = _changed(shown[: number - 1], change, data)
            models = {"led to": _led(run, shown, kind), "start": run.model(1),
                      "another": self.runs[1 - which].states[-1].model}
            told = models[tells]
            chosen = shown
            if lost:
                _forget(places, partner)
            heard.clear()
            try:
                run.sessions[partner].contribute(layout.TrainRequest(
                    RoundId(run.name, number), kind, run.any.agreement.parameters.fingerprint,
                    model_digest(told), b"", tuple(chosen)))
            except Refused:
                assert not heard
            for model in heard:
                assert len(run.states) >= number, "a model of a round that was never reached"
                assert np.array_equal(model, run.model(number, kind))

    run_state_machine_as_test(Server, settings=settings(
        max_examples=20, stateful_step_count=20, deadline=None,
        suppress_health_check=list(HealthCheck)))


def _changed(receipts: list[Receipt], change: str, data: st.DataObject) -> list[Receipt]:
    """What a server can do to them: it holds no key."""
    if not receipts or change == "none":
        return receipts
    at = data.draw(st.integers(0, len(receipts) - 1))
    one = receipts[at]
    if change == "integers":
        place = data.draw(st.integers(0, 9))  # the update comes first
        altered = one.integers.copy()
        altered[place] += data.draw(st.sampled_from((-1, 1, 10**6)))
        receipts[at] = replace(one, integers=altered)
    elif change == "members":
        receipts[at] = replace(one, members=data.draw(st.sampled_from(((0, 1), (0, 2), (1, 2)))))
    elif change == "drop":
        receipts = receipts[:at] + receipts[at + 1:]
    elif change == "swap":
        receipts[0], receipts[at] = receipts[at], receipts[0]
    if change in ("renumber", "drop", "swap") and data.draw(st.booleans()):
        receipts = [replace(one, round=index + 1) for index, one in enumerate(receipts)]
    return receipts


def _led(run: Run, receipts: list[Receipt], kind: str) -> np.ndarray:
    """The model to which the receipts would lead a site that believed them."""
    state = run.states[0]
    for receipt in receipts:
        update = run.any.agreement.mean_update(OpenedSum(receipt.integers, receipt.members))
        state = step(state, update, run.config.strategy)
    return state.model if kind == "train" else state.final


def test_a_run_is_named_by_its_configuration_too(sites) -> None:  # type: ignore[no-untyped-def]
    """What the seals above commit to."""
    places = sites()
    run = places.begin("11" * 8)
    assert run.any._bind(RoundId("11" * 8, 1)).run == _bound_run(
        agreed_digest(to_json(places.config)), "11" * 8)
    assert Site.from_node_config(places.nodes["west"]).partner == "west"
    assert issubclass(ReceiptsMissing, ModelNotVouched)
    assert ReceiptsMissing.__name__ == layout.RECEIPTS_MISSING
