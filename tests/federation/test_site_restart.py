"""A site that died at any write of a round goes on by itself; what its command and log say."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from client.session import Session
from client.site_folder import LEDGERS, NeverAnswered, SiteFolder, SiteFolderLost
from encryption.types import Refused
from experiments import cli
from strategies import layout
from tests.federation.site_party import RUN


class Crash(BaseException):
    """The process dies here."""


def test_after_a_crash_at_any_write_a_site_goes_on_by_itself(  # type: ignore[no-untyped-def]
        party, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies at each fsync of a round in turn, before or after it: the round is charged once, the
    folder agrees, and the site answers it and the next."""
    made = party(model={"head": "bias"})
    made.train(1)
    made.keep()
    fsync, points = os.fsync, 0
    while True:
        for after in (False, True):
            seen = 0

            def dying(descriptor: int, at: int = points, after: bool = after) -> None:
                nonlocal seen
                seen += 1
                if seen - 1 == at and not after:
                    raise Crash
                fsync(descriptor)
                if seen - 1 == at:
                    raise Crash

            with made.damaged(lambda state: None):
                with monkeypatch.context() as patch:
                    patch.setattr(os, "fsync", dying)
                    try:
                        made.train(2)
                        ended = True
                    except Crash:
                        ended = False
                assert not SiteFolder(made.state).losses()
                made.session().join(RUN)
                blocks = made.train(2).blocks
                assert made.train(2).blocks == blocks
                made.train(3)
                assert [line["round"] for line in made.lines] == [0, 1, 2, 3]
        if ended:
            break
        points += 1
    assert points > 8


def test_a_second_site_process_at_work_is_no_loss(party, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Whatever a round has written so far, another process of the site that looks finds whole."""
    made = party()
    fsync, looks = os.fsync, []

    def looking(descriptor: int) -> None:
        fsync(descriptor)
        looks.append(SiteFolder(made.state).losses())

    monkeypatch.setattr(os, "fsync", looking)
    made.train(1)  # the first round of all, too: nothing tells of earlier ones
    made.open(1, made.sum(1))
    assert len(looks) > 16 and not any(looks)


def test_the_command_says_what_is_lost_and_how_to_go_on(  # type: ignore[no-untyped-def]
        party, capsys: pytest.CaptureFixture[str]) -> None:
    made = party()
    made.train(1)
    state = str(made.state)
    assert cli.main(["site", "check", state]) == 0
    (made.state / LEDGERS[0]).unlink()
    assert cli.main(["site", "check", state]) == 1
    assert "accept-loss" in capsys.readouterr().out
    assert cli.main(["site", "accept-loss", state]) == 1
    assert "epsilon-limit" in capsys.readouterr().err
    for wrong in (["--spent", "0"], ["--spent", "nan"], ["--spent", "3", "--delta", "1"]):
        assert cli.main(["site", "accept-loss", state, *wrong]) == 2
    assert cli.main(["site", "accept-loss", state, "--spent", "3"]) == 0
    assert cli.main(["site", "check", state]) == 0
    assert cli.main(["site", "check", state + "-none"]) == 2
    made.session().join(RUN)


def test_how_long_training_took_leaves_a_site_in_powers_of_two(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    limited = made.train(1)
    assert (limited.train_s, limited.encrypt_s) == (1.0, 1.0)
    site = replace(made.session().site, epsilon_limit=None)
    simulated = Session.start(made.config, site).contribute(made.federation.request(2))
    assert 0 < simulated.train_s != round(simulated.train_s)


def test_refusals_of_a_folder_are_refusals() -> None:
    assert issubclass(SiteFolderLost, Refused) and issubclass(NeverAnswered, Refused)
    assert layout.refusal("SiteFolderLost")["head"]["refused"] == "SiteFolderLost"
