"""How many processes share a piece of work."""

import os

import pytest

from encryption import processes


def test_as_many_as_asked_for_or_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert processes.choose(3, 0.0) == 3
    assert processes.choose(1, 1e6) == 1
    assert processes.choose(None, 1.9 * processes.START_UP_S) == 1
    assert processes.choose(None, 2.1 * processes.START_UP_S) == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert processes.choose(None, 1e6) == 1


def test_a_helper_that_fails_is_lost_at_once() -> None:
    helper = processes.Helper("tests.no_such_module", 8)
    with pytest.raises(processes.HelperLost, match="ended"):
        helper.ready(60)
    with pytest.raises(processes.HelperLost):
        helper.receive(1)
    with pytest.raises(processes.HelperLost):
        helper.send(b"x" * 10_000_000)
    helper.close()
    helper.close()
