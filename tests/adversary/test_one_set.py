"""A server that opens one model over several sets: two sums, subtracted, are a partner's own."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from encryption.accumulator import make_accumulator
from keyholder.refusals import AnotherSetOnThisModel
from strategies.global_model import model_digest

EVERYBODY = ("east", "north", "west")
PAIRS = tuple(itertools.combinations(EVERYBODY, 2))


def test_one_opener_opens_one_set_of_a_model_over_all_runs(sites) -> None:  # type: ignore[no-untyped-def]
    """{A, B}, {A, V}, {B, V} of the start: the sum of two less the third is a partner's own."""
    places = sites(strategy={"rounds": 3, "quorum": 2})
    first = places.begin("11" * 8)
    first.round(PAIRS[0])
    slower = replace(places.config, strategy=replace(places.config.strategy, learning_rate=0.01))
    for name, members, config in (("22" * 8, PAIRS[1], None), ("33" * 8, PAIRS[2], None),
                                  ("44" * 8, EVERYBODY, None), ("55" * 8, PAIRS[1], slower)):
        run = places.begin(name, config)
        with pytest.raises(AnotherSetOnThisModel, match=r"over east, north; now.*changed_sets"):
            run.round(members)
    again = places.begin("66" * 8)
    again.round(PAIRS[0])  # the same set, with a key that nobody lost
    again.round(EVERYBODY)  # another model: partners come and go
    first.round(PAIRS[0])


def test_another_opener_for_each_pair_is_noticed_by_who_contributes(sites) -> None:  # type: ignore[no-untyped-def]
    """Before anything is spent: each opener would know of one set alone."""
    places = sites(strategy={"rounds": 3, "quorum": 2, "opener": "east"})
    places.begin("11" * 8).round(PAIRS[0])
    strategy = replace(places.config.strategy, opener="west")
    run = places.begin("22" * 8, replace(places.config, strategy=strategy))
    before = places.ledger("north")
    with pytest.raises(AnotherSetOnThisModel, match="by or over east; now it would be west"):
        run.contribute("north", 1)
    with pytest.raises(AnotherSetOnThisModel):
        run.sessions["north"].join(run.name)
    assert places.ledger("north") == before


@pytest.mark.parametrize("everybody_first", [True, False])
def test_a_quorum_of_all_and_a_lower_one_are_noticed_together(  # type: ignore[no-untyped-def]
        sites, everybody_first: bool) -> None:
    """Everybody's sum by one opener, all but one's by another."""
    places = sites(strategy={"rounds": 3, "opener": "east"})
    strategy = replace(places.config.strategy, quorum=2, opener="west")
    runs = [(places.begin("11" * 8), EVERYBODY),
            (places.begin("22" * 8, replace(places.config, strategy=strategy)), PAIRS[2])]
    (one, its), (other, theirs) = runs if everybody_first else runs[::-1]
    one.round(its)
    with pytest.raises(AnotherSetOnThisModel):
        other.round(theirs)


def test_a_run_that_missed_a_partner_begins_again_with_a_lower_quorum(sites) -> None:  # type: ignore[no-untyped-def]
    """Nothing of it was opened."""
    places = sites(strategy={"rounds": 3})
    run = places.begin("11" * 8)
    run.contribute("east", 1), run.contribute("north", 1)
    strategy = replace(places.config.strategy, quorum=2)
    places.begin("22" * 8, replace(places.config, strategy=strategy)).round(PAIRS[0])


def test_a_site_may_admit_further_sets(sites, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from client.opened_sets import OpenedSets
    from client.session import Session

    places = sites(strategy={"rounds": 3, "quorum": 2})
    places.begin("11" * 8).round(PAIRS[0])
    monkeypatch.setattr(Session, "_sets", property(lambda self: OpenedSets(
        self.site.state_path / "sets", self.key.key_id, admitted=1)))
    places.begin("22" * 8).round(PAIRS[1])
    places.begin("33" * 8).round(PAIRS[0])
    with pytest.raises(AnotherSetOnThisModel):
        places.begin("44" * 8).round(PAIRS[2])


def test_sealed_models_are_opened_over_one_set_too(sites) -> None:  # type: ignore[no-untyped-def]
    places = sites(strategy={"rounds": 3, "quorum": 2}, encryption={"opening": "sealed"})
    for name, members, refused in (("11" * 8, PAIRS[0], False), ("22" * 8, PAIRS[1], True)):
        run = places.begin(name)
        told = model_digest(b"")
        total = make_accumulator(run.any.agreement.layout("train"), 1)
        for partner in members:
            reply = run.sessions[partner].contribute(run.request(1, told=told))
            total.fold(reply.blocks, EVERYBODY.index(partner))
        if refused:
            with pytest.raises(AnotherSetOnThisModel):
                run.open(total.finish(), members, 1, model_digest=told)
        else:
            assert run.open(total.finish(), members, 1, model_digest=told).model


def test_a_test_release_is_opened_over_one_set_of_a_model(sites) -> None:  # type: ignore[no-untyped-def]
    """Runs without noise that go the same way end with the same model."""
    places = sites(strategy={"rounds": 1, "quorum": 2}, privacy={"name": "none"})
    ends = []
    for name, members in (("11" * 8, EVERYBODY), ("22" * 8, PAIRS[0])):
        run = places.begin(name)
        run.round()
        ends.append((run, run.collect(members, 2, "test"), members))
    (run, blocks, members), (other, fewer, pair) = ends
    run.open(blocks, members, 2, "test")
    assert np.array_equal(run.model(2, "test"), other.model(2, "test"))
    with pytest.raises(AnotherSetOnThisModel):
        other.open(fewer, pair, 2, "test")


def test_a_refused_set_claims_no_round_and_retires_no_key(sites) -> None:  # type: ignore[no-untyped-def]
    places = sites(strategy={"rounds": 3, "quorum": 2})
    places.begin("11" * 8).round(EVERYBODY)
    run = places.begin("22" * 8)
    with pytest.raises(AnotherSetOnThisModel):
        run.open(run.collect(PAIRS[0], 1), PAIRS[0], 1)
    opener = run.sessions[run.config.opener]
    opener.join(run.name)  # raises KeyRetired where it would open nothing any more
    assert run.round(EVERYBODY).members == (0, 1, 2)
