"""A kept simulation whose key or a partner's ledger is gone says so at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from conf.schema import InvalidConfig
from experiments.simulate import simulate
from strategies.cohort import TooFewUpdates


def test_the_key_of_a_kept_simulation_is_never_replaced(configure, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = configure(strategy={"rounds": 1}, federation={"folder": str(tmp_path / "f")})
    simulate(config)
    key = tmp_path / "f" / "federation.key"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(InvalidConfig, match=r"put .*federation.key back, or name an empty folder"):
        simulate(config)
    assert not key.exists()
    key.touch(0o600)
    key.write_bytes(kept)
    key.chmod(0o644)
    with pytest.raises(InvalidConfig, match="chmod 600"):
        simulate(config)
    key.chmod(0o600)
    simulate(config)


def test_a_partner_that_cannot_join_is_not_waited_for(  # type: ignore[no-untyped-def]
        configure, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The wait was the whole timeout, for a ledger that no time mends."""
    config = configure(strategy={"rounds": 2, "timeout_s": 600.0},
                       federation={"folder": str(tmp_path / "f")})
    simulate(config)
    ledger = tmp_path / "f" / "state" / "west" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-40] + b"\n")
    began = time.monotonic()
    with pytest.raises(TooFewUpdates, match=r"refused: LedgerBroken; missing: west") as caught:
        simulate(config)
    assert time.monotonic() - began < 120
    assert "Start the missing" not in str(caught.value)
    assert "west: refused: the ledger is damaged" in caplog.text
    assert "veilsum site accept-loss" in caplog.text
