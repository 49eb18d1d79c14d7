"""Who joins, who comes back under another node id, and who may not."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection

import pytest
from flwr.app import Message

from strategies import cohort as module
from strategies import layout
from strategies.cohort import Cohort, KeysDiffer, TooFewUpdates, join
from strategies.records import PartnerRefused, read_content, read_head, record

PARTNERS = ("north", "south", "west")


def _join(grid, quorum: int = 3, timeout_s: float = 20.0, **more) -> Cohort:  # type: ignore[no-untyped-def]
    return join(grid, PARTNERS, quorum, "ab", "f", timeout_s, **more)


def _look(cohort: Cohort, grid) -> None:  # type: ignore[no-untyped-def]
    """Until all that are asked to join have answered."""
    deadline = time.monotonic() + 20
    cohort.look(grid)
    while cohort._mail.nodes and time.monotonic() < deadline:
        time.sleep(0.01)
        cohort.look(grid)
    assert not cohort._mail.nodes


def _replies(cohort: Cohort, grid, timeout_s: float = 5.0, quorum: int = 3,  # type: ignore[no-untyped-def]
             got: dict[str, Message] | None = None) -> dict[str, Message]:
    """What a round hears: one who fails is still wanted, one who refuses or answers is not."""
    got = {} if got is None else got

    def answered() -> list[str]:
        return [name for name, reply in got.items() if reply.has_content()]

    def wanted() -> list[str]:
        return [name for name in PARTNERS if name not in answered()]

    def enough(possible: Collection[str]) -> bool:
        return not len(answered()) < quorum <= len(answered()) + len(possible)

    for partner, reply in cohort.replies(grid, lambda _: record({}), layout.TRAIN, "1", timeout_s,
                                         wanted, enough):
        assert partner not in answered()
        got[partner] = reply
    return got


def test_joining_ends_when_all_partners_are_there(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, other={}, west={})
    grid.silent = {"other"}
    began = time.monotonic()
    assert set(_join(grid).nodes) == set(PARTNERS)
    assert time.monotonic() - began < 5


def test_a_node_that_connects_while_another_is_silent_is_asked(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, other={}, west={})
    grid.silent, grid.gone = {"other"}, {"west"}
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        grid.gone.clear()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_FIRST_WORD_S", 0.3)
        assert set(_join(grid, tell=tell).nodes) == set(PARTNERS)
    (said,) = told
    assert re.fullmatch(r"waiting for west \(2 of 3 partners are here; up to \d+ s\)", said)


def test_too_few_names_who_is_missing_and_who_refused(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={"lost": "1"}, west={})
    grid.gone = {"west"}
    with pytest.raises(TooFewUpdates, match="1 of at least 3 partners") as caught:
        _join(grid, timeout_s=0.5)
    text = str(caught.value)
    assert f"node {grid.node('south')}: the partner refused: SiteError" in text
    assert "missing: south, west" in text and "log of its site" in text
    assert "same command" in text and "spends privacy again" in text


def test_the_cure_fits_what_happened() -> None:
    refused = str(TooFewUpdates(2, 3, {"west": "the partner refused: BudgetExceeded"}))
    assert "Start the missing" not in refused and "log of its site" in refused
    missing = str(TooFewUpdates(2, 3, {}, ["west"]))
    assert "Start the missing clients" in missing and "log of its site" not in missing


def test_keys_that_differ_end_the_run(switchboard) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(KeysDiffer, match="west other"):
        _join(switchboard(north={}, south={}, west={"key": "other"}))


def test_a_second_node_takes_over_only_when_the_first_is_gone(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={}, again={"partner": "west"})
    grid.gone = {"again"}
    cohort = _join(grid)
    first = cohort.nodes["west"]
    grid.gone = set()
    _look(cohort, grid)
    assert grid.heard["again", layout.JOIN] == 1 and cohort.nodes["west"] == first
    grid.gone = {"west"}
    assert cohort.lost == []  # not looked yet
    _look(cohort, grid)
    assert cohort.nodes["west"] == grid.node("again") and cohort.lost == []
    grid.gone = set()
    _look(cohort, grid)  # the first one returns: it may not take its place back
    assert cohort.nodes["west"] == grid.node("again")


def test_nobody_takes_a_place_with_another_key_or_an_unknown_name(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={}, thief={"partner": "west", "key": "other"},
                       stranger={"partner": "nobody"})
    grid.gone = {"thief", "stranger"}
    cohort = _join(grid)
    grid.gone = {"west"}
    _look(cohort, grid)
    assert cohort.nodes["west"] == grid.node("west") and cohort.lost == ["west"]
    assert "another key" in cohort.refused[f"node {grid.node('thief')}"]
    assert "does not have" in cohort.refused[f"node {grid.node('stranger')}"]
    assert _replies(cohort, grid, timeout_s=0.5).keys() == {"north", "south"}
    assert not any(grid.heard[name, layout.TRAIN] for name in ("thief", "stranger", "west"))


def test_a_key_that_differed_before_the_run_began_gets_no_place_later(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, thief={"partner": "west", "key": "other"}, west={}, south={})
    grid.gone = {"south", "thief"}
    cohort = Cohort(PARTNERS, "ab", "f")
    _look(cohort, grid)
    grid.gone = {"south"}
    _look(cohort, grid)  # joins before the keys are compared, and waits
    cohort.agree()
    grid.gone = {"west", "south"}
    _look(cohort, grid)
    assert cohort.nodes == {"north": grid.node("north"), "west": grid.node("west")}


def test_a_partner_that_missed_the_start_joins_later(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={})
    grid.gone = {"west"}
    cohort = _join(grid, quorum=2, timeout_s=0.3)
    assert cohort.missing == ["west"]
    assert _replies(cohort, grid, quorum=2).keys() == {"north", "south"}
    grid.gone = set()
    _look(cohort, grid)
    assert _replies(cohort, grid, quorum=2).keys() == set(PARTNERS)


def test_a_node_that_returns_under_its_own_id_is_asked_again(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={"lost": "1"})
    cohort = Cohort(PARTNERS, "ab", "f")
    _look(cohort, grid)
    for gone in ({"west"}, set()):
        grid.gone = gone
        _look(cohort, grid)
    assert grid.heard["west", layout.JOIN] == 2 and grid.heard["north", layout.JOIN] == 1


def test_a_partner_that_vanishes_at_work_is_asked_again_when_it_is_back(switchboard) -> None:  # type: ignore[no-untyped-def]
    """Under another node id; it connects before Flower knows that the first one is gone."""
    grid = switchboard(north={}, south={}, west={}, again={"partner": "west"})
    grid.gone = {"again"}
    cohort = _join(grid)

    def push(name: str, kind: str) -> None:
        if (name, kind) == ("west", layout.TRAIN):
            grid.silent, grid.gone = {"west"}, set()
        elif (name, kind) == ("again", layout.JOIN):
            grid.gone = {"west"}

    grid.on_push = push
    got = _replies(cohort, grid)
    assert all(reply.has_content() for reply in got.values()) and set(got) == set(PARTNERS)
    asked = {name: grid.heard[name, layout.TRAIN] for name in ("north", "west", "again")}
    assert asked == {"north": 1, "west": 1, "again": 1}


def test_a_node_that_vanishes_at_work_and_returns_as_itself_is_asked_again(switchboard) -> None:  # type: ignore[no-untyped-def]
    """As a SuperNode does that has a key of its own."""
    grid = switchboard(north={}, south={}, west={})
    cohort = _join(grid)
    left = [1]

    def push(name: str, kind: str) -> None:
        if left and (name, kind) == ("west", layout.TRAIN):
            grid.gone = {"west"}
            threading.Timer(left.pop(), grid.gone.clear).start()

    grid.on_push = push
    got = _replies(cohort, grid)
    assert all(reply.has_content() for reply in got.values()) and set(got) == set(PARTNERS)
    assert grid.heard["west", layout.TRAIN] == 2


def test_a_round_waits_for_a_lost_partner_only_while_it_lacks_a_quorum(  # type: ignore[no-untyped-def]
        switchboard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = switchboard(north={}, south={}, west={})
    cohort = _join(grid)
    grid.gone = {"west"}
    began = time.monotonic()
    assert _replies(cohort, grid, quorum=2, timeout_s=20).keys() == {"north", "south"}
    assert time.monotonic() - began < 5
    monkeypatch.setattr(module, "_FIRST_WORD_S", 0.2)
    assert _replies(cohort, grid, quorum=3, timeout_s=1).keys() == {"north", "south"}
    assert re.search(r"round 1: waiting for west to connect; up to \d s", caplog.text)


def test_a_client_that_always_crashes_is_not_asked_for_ever(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={})
    cohort = _join(grid)
    grid.crashing = {"west"}
    began = time.monotonic()
    got = _replies(cohort, grid, timeout_s=20)
    assert time.monotonic() - began < 5 and grid.heard["west", layout.TRAIN] == 3
    with pytest.raises(layout.ClientFailed, match=r"ended without an answer.*Flower error 8") as e:
        read_content(got["west"])
    assert "path" not in str(e.value)


def test_joining_ends_at_once_where_all_that_are_missing_refuse(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={"lost": "1"})
    began = time.monotonic()
    with pytest.raises(TooFewUpdates, match=r"partner refused: SiteError; missing: west") as caught:
        _join(grid, timeout_s=60.0)
    assert time.monotonic() - began < 20 and "Start the missing" not in str(caught.value)
    began = time.monotonic()
    assert set(_join(grid, quorum=2, timeout_s=60.0).nodes) == {"north", "south"}
    assert time.monotonic() - began < 20


def test_joining_waits_for_whoever_may_still_come(switchboard) -> None:  # type: ignore[no-untyped-def]
    """One that is missing has not refused; a stranger's refusal is nobody's."""
    grid = switchboard(north={}, south={"lost": "1"}, west={}, thief={"partner": "west",
                                                                      "key": "k2"})
    grid.gone = {"west", "thief"}
    with pytest.raises(TooFewUpdates, match=r"1 of at least 3 .*missing: south, west.*Start the"):
        _join(grid, timeout_s=3.0)
    grid = switchboard(north={}, south={}, west={}, stranger={"partner": "elsewhere"})
    grid.gone = {"west"}
    timer = threading.Timer(2.0, grid.gone.clear)
    timer.start()
    assert set(_join(grid, timeout_s=30.0).nodes) == set(PARTNERS)


def test_a_refusal_is_final(switchboard) -> None:  # type: ignore[no-untyped-def]
    grid = switchboard(north={}, south={}, west={"refuses": "1"})
    cohort = _join(grid)
    got = _replies(cohort, grid)
    assert grid.heard["west", layout.TRAIN] == 1
    with pytest.raises(PartnerRefused, match="SiteError"):
        read_head(read_content(got["west"]))


@pytest.mark.parametrize(("code", "words", "passing"), [
    (5, "SuperNode ended or lost its connection", True), (8, "out of memory", True),
    (2, "raised an error", False), (99, "client failed", False)])
def test_an_error_of_flower_is_said_in_words(code: int, words: str, passing: bool) -> None:
    error = layout.ClientFailed(code)
    assert words in str(error) and f"(Flower error {code})" in str(error)
    assert error.passing is passing


def test_what_is_told_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told: list[str] = []
    tell: Callable[[str], None] = told.append
    reminder = module.Reminder(tell)
    for second in range(200):
        now[0] = 100.0 + second
        reminder.say(str(second))
    assert told == ["10", "70", "130", "190"]
