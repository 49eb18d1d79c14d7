"""What would stop a partner later in a run stops it when it joins: nobody has spent anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from client.app import _sessions
from client.session import Session
from client.site import Site, SiteError
from conf.compose import to_json
from conf.schema import InvalidConfig
from encryption.parameters import choose_parameters
from keyholder.keys import SharedKey
from privacy.ledger import Ledger
from strategies import layout
from strategies.layout import PartnerRefused, parse_join_reply, parse_train_reply

RUN = "ab" * 16


def _joined(federation, partner: str = "east", run: str = RUN) -> str:  # type: ignore[no-untyped-def]
    """The partner's key, or why it refuses."""
    request = layout.join_request(run, federation.parameters.fingerprint)
    try:
        return parse_join_reply(federation.send(partner, request, layout.JOIN)).key_id
    except PartnerRefused as refused:
        return refused.reason


def test_a_limit_below_the_whole_run_is_known_before_its_first_round(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    """A run costs up to 3, so that 3.5 hold one, which may go on, and not a second."""
    with clients(configure(), epsilon_limit=3.5) as federation:
        assert len(_joined(federation)) > 20
        for number in (1, 2):
            parse_train_reply(federation.train("east", number))
            assert len(_joined(federation)) > 20
        assert _joined(federation, run="cd" * 16) == "BudgetExceeded"
    site = tmp_path / "state" / "east"
    entries = Ledger(site / "ledger.jsonl", None, 1e-5).entries()
    assert {entry.round for entry in entries} <= {0, 1, 2} and len(entries) >= 2
    assert not Ledger(site / "ledger-heldout.jsonl", None, 1e-5).entries()


def test_another_division_of_customers_is_known_at_once(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    with clients(configure()) as federation:
        division = {"seed": 5, "holdout_fraction": federation.config.task.holdout_fraction}
        parse_train_reply(federation.train("east", 1))
        (tmp_path / "state" / "east" / "split.json").write_text(json.dumps(division) + "\n")
        assert _joined(federation) == "SplitChanged" and len(_joined(federation, "west")) > 20


def test_an_opener_whose_key_is_retired_says_so_before_a_round(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    with clients(configure()) as federation:
        key = _joined(federation)
        opener = federation.config.opener
        retired = tmp_path / "state" / opener / "openings" / "retired"
        retired.mkdir(parents=True, exist_ok=True)
        (retired / f"key-{key}").touch()
        others = [name for name in federation.config.federation.partners if name != opener]
        assert _joined(federation, opener) == "KeyRetired"
        assert [_joined(federation, name) for name in others] == [key, key]


def test_a_key_that_is_replaced_during_a_run_spoils_no_sum(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path) -> None:
    """The sum would fail its checks, and the opener retire the run and everybody's key."""
    with clients(configure()) as federation:
        path = tmp_path / "federation.key"
        own = path.read_bytes()
        parse_train_reply(federation.train("east", 1))
        path.unlink()
        SharedKey.generate(choose_parameters("shared_key", 3, 16)).save(path)
        _sessions.clear()
        with pytest.raises(PartnerRefused) as caught:
            parse_train_reply(federation.train("east", 2))
        assert caught.value.reason == "KeyChanged" == _joined(federation)
        assert len(_joined(federation, run="cd" * 16)) > 20
        path.write_bytes(own)
        _sessions.clear()
        parse_train_reply(federation.train("east", 2))


def _deployed(config):  # type: ignore[no-untyped-def]
    return replace(config, federation=replace(
        config.federation, name="deployment", folder="", sites={}))


@pytest.mark.parametrize("damage", [
    {"time": pl.col("time").dt.offset_by("7y")},
    {"category": pl.col("category").str.to_uppercase()},
])
def test_a_site_whose_data_does_not_fit_the_run_does_not_join(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path, damage: dict[str, pl.Expr]) -> None:
    with clients(configure()) as federation:
        site = Site.from_node_config(federation.nodes["east"])
        config = to_json(_deployed(federation.config))
        assert len(Session.start(config, site).data.train)
        other = tmp_path / "other.parquet"
        pl.read_parquet(site.data_path).with_columns(**damage).write_parquet(other)
        with pytest.raises(SiteError, match=r"nothing to train on.*validate-data"):
            Session.start(config, replace(site, data_path=other))


@pytest.mark.parametrize("policy", [
    "", 'categories = ["bread", "coffee", "milk"]\ndays = ["2016-01-01", "2018-12-31"]\n'])
def test_one_customer_does_not_decide_whether_a_site_joins(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path, caplog, policy: str) -> None:
    """A server that chooses what counts would read a membership off a refusal."""
    with clients(configure(), policy, epsilon_limit=9.0) as federation:
        site = Site.from_node_config(federation.nodes["east"])
        config = to_json(_deployed(federation.config))
        nobody = tmp_path / "nobody.parquet"
        pl.read_parquet(site.data_path).with_columns(
            category=pl.lit("something else")).write_parquet(nobody)
        session = Session.start(config, replace(site, data_path=nobody))
        assert session.join("ab" * 16).partner == "east"
        assert "takes part all the same" in caplog.text


def test_a_deployment_names_its_calendar(configure, clients) -> None:  # type: ignore[no-untyped-def]
    with clients(configure()) as federation:
        config = _deployed(federation.config)
        with pytest.raises(InvalidConfig, match=r"a deployment names task.train_snapshots"):
            replace(config, task=replace(config.task, test_snapshot="")).validate()


def test_a_state_folder_that_is_not_there_is_not_made(configure, clients, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A mistyped one, or a disk that is not mounted, would begin its record at nothing."""
    with clients(configure()) as federation:
        node = {**federation.nodes["east"], "state-path": str(tmp_path / "staet")}
        with pytest.raises(SiteError, match="Make it once, on a disk that stays"):
            Site.from_node_config(node)
        assert not (tmp_path / "staet").exists()


def test_a_site_with_a_limit_needs_a_policy_that_knows_it(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is wrong stands in the site's log, and with it the file to write."""
    with clients(configure(), epsilon_limit=3.5) as federation:
        path = tmp_path / "state" / "east" / "policy.toml"
        text = path.read_text()
        for wrong, said in ((None, "[partners]\nnorth = 600\nsouth = 400"),
                            (text.replace('"east" =', '"least" ='), "[partners] lacks 'east'"),
                            ("quorum = 3\n" + text, "quorum: no such key"),
                            ("least_quorum == 3", "is not TOML")):
            path.unlink() if wrong is None else path.write_text(wrong)
            assert _joined(federation) == "SiteError"
            assert said in caplog.text
        path.write_text(text)
        assert len(_joined(federation)) > 20
        node = {**federation.nodes["east"], "policy-path": str(tmp_path / "none.toml")}
        with pytest.raises(SiteError, match="this site has no policy"):
            Site.from_node_config({**node, "epsilon-limit": "unlimited"})


def test_what_a_run_calls_itself_decides_nothing_about_a_sites_customers(  # type: ignore[no-untyped-def]
        configure, clients, tmp_path: Path, caplog) -> None:
    """A refusal would tell a server, which chooses the calendar, who is a customer; what keeps it
    from calendars that empty all sites but one is the policy's days, categories and calendars."""
    with clients(configure(), epsilon_limit=3.5) as federation:
        path = Path(federation.nodes["east"]["data-path"])
        assert federation.config.federation.name == "local"
        pl.read_parquet(path).with_columns(
            pl.col("time").dt.offset_by("7y")).write_parquet(path)
        assert len(_joined(federation)) > 20
        assert "nothing to train on" in caplog.text


def test_a_site_with_a_limit_takes_no_settings_of_simulations(  # type: ignore[no-untyped-def]
        configure, clients) -> None:
    """Of the k customers of smallest hash, leaving one out lets another in: two change."""
    newcomer = {"newcomer_partner": "west", "newcomer_customers": 3}
    with clients(configure(task=newcomer), epsilon_limit=3.5) as federation:
        assert _joined(federation) == "Refused"
        with pytest.raises(InvalidConfig, match=r"task.newcomer_partner: is for simulations"):
            _deployed(federation.config).validate()
        simulated = replace(Site.from_node_config(federation.nodes["west"]), epsilon_limit=None,
                            policy=None)
        assert len(Session.start(to_json(federation.config), simulated).data.train) == 3


def test_a_site_that_cannot_use_its_table_says_no_more(  # type: ignore[no-untyped-def]
        configure, clients, caplog: pytest.LogCaptureFixture) -> None:
    with clients(configure()) as federation:
        path = Path(federation.nodes["east"]["data-path"])
        frame = pl.read_parquet(path)
        frame.with_columns(pl.lit("west").alias("partner")).write_parquet(path)
        assert _joined(federation) == "SiteError"
    assert "this is the site of 'east'" in caplog.text
