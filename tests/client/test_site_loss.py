"""What an owner says of a loss is charged, also where only the witnesses of a ledger are lost."""

from __future__ import annotations

import json
from pathlib import Path

import dp_accounting as dp
import pytest

from client.site_folder import SiteFolder
from client.site_loss import Owner, accept_loss
from privacy.ledger import Ledger

DELTA = 1e-5


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A site that spent two rounds, and whose notes and replies are gone: perhaps the end of its
    ledger is, too."""
    (tmp_path / "split.json").write_text(json.dumps({"seed": 0, "holdout_fraction": 0.2}))
    ledger = Ledger(tmp_path / "ledger.jsonl", None, DELTA)
    for number in (1, 2):
        ledger.spend("run", number, dp.GaussianDpEvent(5.0), failure=0.0)
    return tmp_path


@pytest.mark.parametrize("spent", [None, 1.5])
def test_a_ledger_that_nothing_vouches_for_is_charged_what_its_owner_says(
        state: Path, spent: float | None) -> None:
    before = Ledger(state / "ledger.jsonl", None, DELTA).spent()
    assert {loss.part for loss in SiteFolder(state).losses()} == {"answered", "sets"}
    accept_loss(state, Owner(spent, DELTA))
    after = Ledger(state / "ledger.jsonl", None, DELTA).spent()
    assert after == before if spent is None else after > max(before, spent)
    assert not SiteFolder(state).losses()
