"""What a client does for a server that asks too much, too often or the wrong thing."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import RecordDict

from client import policy_file
from client.app import _opening, _sessions
from client.run_notes import parse_note
from client.session import Session
from client.site import Site, SiteError
from client.split import SplitChanged
from conf.compose import to_json
from encryption.accumulator import digest, make_accumulator
from encryption.control import ControlLayout
from encryption.types import OpeningClaim, RoundId
from keyholder.refusals import OpeningRefused
from learning.tables import TableError
from privacy.ledger import Ledger
from strategies import layout
from strategies.agreement import Agreement
from strategies.layout import PartnerRefused, parse_open_reply, parse_train_reply

RUN = "ab" * 16


def _refused(message) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(PartnerRefused) as caught:
        parse_train_reply(message)
    return caught.value.reason


def test_asked_again_a_client_resends_the_same_bytes(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """Even if another model is meant: fresh noise on the same data would leak."""
    with clients(configure()) as federation:
        request = federation.request(1)
        first, again = (
            parse_train_reply(federation.ask("east", replace(request, model_digest=digest)))
            for digest in (request.model_digest, b"m" * 32))
        assert first.blocks == again.blocks
        for number in (2, 3):
            parse_train_reply(federation.train("east", number))
        assert _refused(federation.train("east", 1)) == "RoundAlreadyAnswered"


def test_what_rounding_left_over_outlives_the_client(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """It stops between keeping what round 2 left over and storing the reply, and starts anew."""
    config = configure(privacy={"name": "none"}, encryption={"bits": 4, "feedback": True})
    site = tmp_path / "state" / "east"
    with clients(config) as federation:
        parse_train_reply(federation.train("east", 1))
        (first,) = site.glob("leftovers/*/000000001.blocks")
        parse_train_reply(federation.train("east", 2))
        second = first.with_name("000000002.blocks")
        before = first.read_bytes(), second.read_bytes()
        assert before[0] != before[1]  # the same model, and so the same update, twice
        next(site.glob("replies/*/000000002.blocks")).unlink()
        (path,) = site.glob("answered/[0-9a-f]*")
        note = parse_note(path.read_bytes())
        path.write_bytes(replace(note, answered=1).packed())  # round 2 begun, and no more
        _sessions.clear()
        parse_train_reply(federation.train("east", 2))
        assert (first.read_bytes(), second.read_bytes()) == before


def test_rounds_outside_the_plan_are_refused(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        for number, kind in ((4, "train"), (99, "train"), (3, "test"), (5, "test"), (1, "other")):
            assert _refused(federation.train("east", number, kind=kind)) == "Refused"


def test_the_ledger_stops_a_partner_across_runs(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each run costs up to 3; a limit of 3.5 allows one, and a second only in part."""
    with clients(configure(), epsilon_limit=3.5) as federation:
        for number in (1, 2, 3):
            parse_train_reply(federation.train("east", number))
        reasons = [federation.train("east", number, run="cd" * 16) for number in (1, 2, 3)]
        assert _refused(reasons[-1]) == "BudgetExceeded"
    spent = Ledger(tmp_path / "state" / "east" / "ledger.jsonl", None, 1e-5).spent()
    assert 2.9 < spent <= 3.5


def test_the_server_does_not_choose_the_delta_of_a_sites_limit(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """At a δ of nearly .01 the same noise looks like half the ε."""
    with clients(configure(privacy={"delta": 9.9e-3}), "delta = 9.9e-3\n",
                 epsilon_limit=3.0) as federation:
        assert _refused(federation.train("east", 1)) == "Refused"
        node = federation.nodes["east"]
        assert Site.from_node_config(node).delta == 1e-5
        for delta in (0, 0.01, "1e-5", True, float("nan")):
            with pytest.raises(SiteError, match="delta"):
                Site.from_node_config({**node, "delta": delta})


def test_a_limit_is_counted_at_the_sites_delta(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with clients(configure(), epsilon_limit=3.0, delta=9.9e-3) as federation:
        for number in (1, 2, 3):
            parse_train_reply(federation.train("east", number))
        for number in (1, 2, 3):  # costs 3 at 1e-5, and less at the site's delta
            parse_train_reply(federation.train("east", number, run="cd" * 16))
    path = tmp_path / "state" / "east" / "ledger.jsonl"
    assert Ledger(path, None, 9.9e-3).spent() <= 3.0 < Ledger(path, None, 1e-5).spent()


def test_a_round_whose_reply_was_lost_is_not_answered_with_other_noise(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    with clients(configure()) as federation:
        parse_train_reply(federation.train("east", 1))
        shutil.rmtree(tmp_path / "state" / "east" / "replies")
        assert _refused(federation.train("east", 1)) == "RoundAlreadyAnswered"
        parse_train_reply(federation.train("east", 2))


def test_locks_of_configurations_do_not_pile_up(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        parse_train_reply(federation.train("east", 1))
        assert not _opening


def test_spending_is_written_even_if_training_then_fails(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr("client.session.training_sums", fails)
    with clients(configure()) as federation:
        assert _refused(federation.train("east", 1)) == "ValueError"
    assert Ledger(tmp_path / "state" / "east" / "ledger.jsonl", None, 1e-5).spent() > 0


def test_messages_that_are_none_are_refused_in_one_word(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        for kind in (layout.TRAIN, layout.OPEN, layout.JOIN):
            message = federation.send("east", RecordDict(), kind)
            assert message.content["head"]["refused"] == "Refused"


def _sum(federation, number: int = 1):  # type: ignore[no-untyped-def]
    """A finished sum of the round, as an honest server would make it."""
    agreement = Agreement.of(federation.config)
    plan = agreement.layout("train")
    accumulator = make_accumulator(plan)
    for partner in federation.config.federation.partners:
        accumulator.fold(parse_train_reply(federation.train(partner, number)).blocks)
    return accumulator.finish(), plan


def _open(federation, partner: str, blocks, members, run: str = RUN):  # type: ignore[no-untyped-def]
    claim = OpeningClaim(RoundId(run, 1), members, digest(blocks))
    request = layout.OpenRequest(claim, "train", federation.parameters.fingerprint, blocks,
                                 federation.start_digest)
    return federation.send(partner, layout.open_request(request), layout.OPEN)


def _opened(message, plan: ControlLayout) -> np.ndarray:  # type: ignore[no-untyped-def]
    return parse_open_reply(message, plan.values).opened.values


def test_only_the_named_opener_opens_and_only_the_same_sum_again(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure(strategy={"quorum": 2, "rounds": 3})) as federation:
        blocks, plan = _sum(federation)
        with pytest.raises(PartnerRefused, match="NotTheOpener"):
            _opened(_open(federation, "west", blocks, (0, 1, 2)), plan)
        first = _opened(_open(federation, "east", blocks, (0, 1, 2)), plan)
        again = _opened(_open(federation, "east", blocks, (0, 1, 2)), plan)
        np.testing.assert_array_equal(first, again)
        with pytest.raises(PartnerRefused, match="AnotherSumClaimed"):
            _opened(_open(federation, "east", blocks, (0, 1)), plan)


def test_one_partners_update_is_never_opened(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """The attack that matters: hand the opener a single ciphertext as "the sum"."""
    with clients(configure()) as federation:
        _, plan = _sum(federation)
        west = parse_train_reply(federation.train("west", 1)).blocks
        accumulator = make_accumulator(plan)
        accumulator.fold(west)
        single = accumulator.finish()
        with pytest.raises(PartnerRefused, match="QuorumNotMet"):
            _opened(_open(federation, "east", single, (2,)), plan)
        with pytest.raises(PartnerRefused, match="Mismatch"):
            _opened(_open(federation, "east", single, (0, 1, 2)), plan)
        honest, _ = _sum(federation)
        with pytest.raises(PartnerRefused, match=r"KeyRetired|AnotherSumClaimed"):
            _opened(_open(federation, "east", honest, (0, 1, 2)), plan)


def test_a_site_without_its_key_says_so_locally_and_one_word_abroad(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with clients(configure()) as federation:
        (tmp_path / "federation.key").rename(tmp_path / "elsewhere.key")
        message = federation.train("east", 1)
        assert _refused(message) == "SiteError"
        assert str(tmp_path) not in str(message.content)
        assert "key-path" in caplog.text


def test_a_damaged_key_is_refused(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        path = tmp_path / "federation.key"
        content = path.read_bytes()
        path.write_bytes(content[:-5])
        assert _refused(federation.train("east", 1)) == "KeyFileError"
        assert hashlib.sha256(content).digest()[:8] not in path.read_bytes()


def test_noise_of_one_configuration_is_not_opened_under_another(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """Shares for a quorum of three, then an opening under a configuration that asks for two:
    the sum of two would have too little noise."""
    with clients(configure(strategy={"quorum": 3, "rounds": 3})) as federation:
        config = federation.config
        weaker = replace(config, strategy=replace(config.strategy, quorum=2))
        plan = Agreement.of(config).layout("train")
        accumulator = make_accumulator(plan)
        for partner in ("north", "west"):
            accumulator.fold(parse_train_reply(federation.train(partner, 1)).blocks)
        blocks = accumulator.finish()
        claim = OpeningClaim(RoundId(RUN, 1), (1, 2), digest(blocks))
        request = layout.OpenRequest(claim, "train", federation.parameters.fingerprint, blocks,
                                     federation.start_digest)
        opener = Session.start(to_json(weaker), Site.from_node_config(federation.nodes["east"]))
        with pytest.raises(OpeningRefused, match="tag"):
            opener.open_sum(request)


def test_a_site_reads_its_own_partners_data_alone(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Whatever its file is called, and not another partner's."""
    with clients(configure(task={"holdout_partners": ["east"]})) as federation:

        def start(partner: str, path: object) -> Session:
            node = {**federation.nodes[partner], "data-path": str(path)}
            return Session.start(to_json(federation.config), Site.from_node_config(node))

        own = federation.nodes["east"]["data-path"]
        unnamed = tmp_path / "purchases.csv"
        pl.read_parquet(own).drop("partner").unique().write_csv(unnamed)
        assert len(start("east", unnamed).data.heldout) == len(start("east", own).data.heldout) > 0
        assert len(start("west", unnamed).data.heldout) == 0
        with pytest.raises(TableError, match="names 'east', and this is the site of 'west'"):
            start("west", own)


def test_a_site_states_its_own_limit(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        node = federation.nodes["east"]
        for limit in (None, "", 0, -1.0, True, float("inf"), "three"):
            with pytest.raises(SiteError, match="epsilon-limit"):
                Site.from_node_config({**node, "epsilon-limit": limit})
        path = Path(str(node["state-path"])) / policy_file.NAME
        path.write_text(policy_file.starter(federation.config.federation.customers))
        assert Site.from_node_config({**node, "epsilon-limit": 3}).epsilon_limit == 3.0


def test_a_run_without_privacy_is_refused_by_a_site_with_a_limit(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure(privacy={"name": "none"}), 'privacy = ["none"]\n',
                 epsilon_limit=50.0) as federation:
        assert _refused(federation.train("east", 1)) == "BudgetExceeded"


def test_a_run_that_is_refused_does_not_fix_who_is_held_out(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    with clients(configure(), epsilon_limit=0.001) as federation:
        assert _refused(federation.train("east", 1)) == "BudgetExceeded"
    assert not (tmp_path / "state" / "east" / "split.json").exists()


def test_customers_never_change_sides_between_runs(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """With another seed a customer could spend in both ledgers."""
    with clients(configure()) as federation:
        parse_train_reply(federation.train("east", 1))
        site = Site.from_node_config(federation.nodes["east"])
        request = federation.request(1, run="cd" * 16)
        other = Session.start(to_json(replace(federation.config, seed=1)), site)
        with pytest.raises(SplitChanged):
            other.contribute(request)


def test_a_path_in_the_configuration_is_not_read(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        task = replace(federation.config.task, path=str(tmp_path / "somebody-elses.csv"))
        site = Site.from_node_config(federation.nodes["east"])
        session = Session.start(to_json(replace(federation.config, task=task)), site)
        assert session.config.task.path is None
        assert len(session.data.train)


@pytest.mark.parametrize("processes", (0, -1, 65, 1.5, "2", True))
def test_a_site_states_how_many_processes_in_a_whole_number(configure, clients, processes) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        node = next(iter(federation.nodes.values()))
        assert Site.from_node_config(node).processes == 1  # a simulation's
        assert Site.from_node_config({**node, "processes": 3}).processes == 3
        rest = {key: value for key, value in node.items() if key != "processes"}
        assert Site.from_node_config(rest).processes is None
        with pytest.raises(SiteError, match="processes must be a whole number"):
            Site.from_node_config({**node, "processes": processes})


def test_a_client_seals_with_several_processes_from_its_second_round_on(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """The first round does not wait for them."""
    wide = configure(model={"name": "mlp", "hidden": 4096}, strategy={"rounds": 3, "quorum": 3})
    with clients(wide, processes=2) as federation:
        partners = federation.config.federation.partners
        for number in (1, 2):
            blocks, plan = _sum(federation, number)
            sealers = [session._sealers["train"] for (_, site), session in _sessions.items()
                       if str(site.key_path) == federation.nodes[partners[0]]["key-path"]]
            assert len(sealers) == len(partners) and plan.blocks >= 4
            assert all(helper.ready(60) for sealer in sealers for helper in sealer.helpers)
            claim = OpeningClaim(RoundId(RUN, number), (0, 1, 2), digest(blocks))
            request = layout.OpenRequest(claim, "train", federation.parameters.fingerprint, blocks,
                                         federation.start_digest)
            opened = federation.send("east", layout.open_request(request), layout.OPEN)
            assert _opened(opened, plan).any()
        assert all(len(sealer.helpers) == 1 for sealer in sealers)
        for sealer in sealers:
            sealer.helpers[0].close()


def test_two_processes_asked_at_once_give_one_answer(configure, clients) -> None:  # type: ignore[no-untyped-def]
    """A server that was killed leaves a client at work and asks again: the second process (its
    session shares no lock but the disk's) waits, and sends the first one's bytes."""
    with clients(configure()) as running:
        site = Site.from_node_config(running.nodes["east"])
        sessions = [Session.start(to_json(running.config), site) for _ in range(2)]
        request = running.request(1)
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda session: session.contribute(request), sessions)
    assert first.blocks == second.blocks
