"""Parts of a site's folder that are lost together, and what a refused request leaves: nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import combinations

import pytest

from client.session import _bound_run
from client.site_folder import SiteFolder, SiteFolderLost
from client.site_loss import CannotAccept, Owner, accept_loss
from conf.compose import agreed_digest
from encryption.types import Refused
from keyholder.refusals import AnotherSetOnThisModel
from tests.federation.site_party import RUN
from tests.federation.test_site_folder import _gone, _note_damaged, _refused

REMAKES = {"replies", "models"}
"""Of an answered round the reply is refused without; models are stepped again."""


@pytest.mark.parametrize("partner", ["east", "west"], ids=["opener", "contributor"])
def test_any_four_parts_that_are_gone_are_missed(party, partner: str) -> None:  # type: ignore[no-untyped-def]
    """Whatever is left tells of it; and the loss can be accepted, whatever else is lost."""
    made = party(model={"head": "bias"})
    made.open(1, made.sum(1))
    made.session(partner).join(RUN)
    made.state = made.state.with_name(partner)
    made.keep()
    config = made.session(partner).config
    parts = {path.name for path in made.state.iterdir()} - {"policy.toml"}
    assert {"ledger.jsonl", "answered", "replies", "keys", "sets", "split.json", "heads"} <= parts
    known = _bound_run(agreed_digest(made.config), RUN)
    division = (made.state / "split.json").read_text()
    for count in range(1, 5):
        for lost in combinations(sorted(parts), count):
            with made.damaged(_gone(*lost)):
                folder = SiteFolder(made.state)
                if REMAKES.issuperset(lost):
                    folder.check(known, config)
                    continue
                with pytest.raises(Refused):
                    folder.check(known, config)
                assert not any(path.is_file() for name in lost for path in (
                    made.state / name, *(made.state / name).rglob("*"))), lost
                if folder.losses():
                    (made.state / "split.json").write_text(division)
                    accept_loss(made.state, Owner(5.0, 1e-5))
                    folder.check("another run", config)


def test_who_looks_writes_no_ledger(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    made.session().join(RUN)
    assert not made.ledgers
    made.train(1)
    assert len(made.ledgers) == 1


def test_a_set_that_is_forgotten_opens_no_other_sum_of_its_model(party) -> None:  # type: ignore[no-untyped-def]
    """Another run begins with the same model: over a set that differs by one."""
    made = party()
    blocks = made.sum(1)
    made.open(1, blocks)
    made.keep()
    one = sorted(path.name for path in (made.state / "sets").glob("*.json"))
    assert len(one) == 2  # of the round: who opens it, and over which partners it was opened
    for gone in (("sets",), *((f"sets/{name}",) for name in one)):
        with made.damaged(_gone(*gone)):
            _refused(made, SiteFolderLost)
            with pytest.raises(SiteFolderLost, match="folder sets"):
                made.open(1, blocks)
            assert any("new key" in done for done in accept_loss(made.state, Owner(None, 1e-5)))
            assert not SiteFolder(made.state).losses()
            if gone == ("sets",):
                for act in (lambda: made.session().join("cd" * 16), lambda: made.train(2),
                            lambda: made.open(1, blocks)):
                    with pytest.raises(AnotherSetOnThisModel):
                        act()


def test_another_key_or_a_policy_goes_on_after_sets_are_lost(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    made.train(1)
    shutil.rmtree(made.state / "sets")
    accept_loss(made.state, Owner(None, 1e-5))
    sets = made.session()._sets
    model = made.session()._models("new").contributed(made.federation.request(1)).vector
    with pytest.raises(AnotherSetOnThisModel):
        sets.about(model, "train", "set", ["east"]).note()
    replace(sets, key_id="ef" * 16).about(model, "train", "set", ["east"]).check()
    admitted = replace(sets, admitted=1)
    admitted.about(model, "train", "set", ["east"]).note()
    sets.about(model, "train", "set", ["east"]).check()
    with pytest.raises(AnotherSetOnThisModel):
        admitted.about(model, "train", "set", ["west"]).check()


def test_a_loss_beside_a_damaged_note_is_found_too(party) -> None:  # type: ignore[no-untyped-def]
    """The damaged note was all that was told, and accepting it accepted an empty ledger."""
    made = party()
    for number in (1, 2):
        made.train(number)
    _note_damaged(made.state)
    _gone("ledger.jsonl", "replies")(made.state)
    _refused(made, SiteFolderLost)
    with pytest.raises(CannotAccept, match="--spent"):
        accept_loss(made.state, Owner(None, 1e-5))


def test_a_refused_opening_leaves_nothing_behind(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    before = {path for path in made.state.rglob("*") if path.is_file()}
    for members in ((1,), (1, 2)):
        with pytest.raises(Refused):
            made.open(1, (b"no block",), members)
    assert {path for path in made.state.rglob("*") if path.is_file()
            and path.name != "lock"} == before
