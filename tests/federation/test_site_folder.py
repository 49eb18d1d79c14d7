"""A site's folder that lost a part is noticed before anything is spent, and goes on without a
backup; one that a crash left goes on by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client.heads import HeadDamaged
from client.reply_store import RoundAlreadyAnswered
from client.site_folder import LEDGERS, NeverAnswered, SiteFolder, SiteFolderLost
from client.site_loss import CannotAccept, Owner, accept_loss
from encryption.accumulator import make_accumulator
from keyholder.refusals import AnotherSumClaimed
from privacy.ledger import BudgetExceeded, Ledger
from privacy.ledger_file import LedgerBroken
from strategies.agreement import Agreement
from tests.federation.site_party import RUN, Party


def _gone(*names: str) -> Callable[[Path], None]:
    def damage(state: Path) -> None:
        for name in names:
            path = state / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    return damage


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    def damage(state: Path) -> None:
        path = state / LEDGERS[0]
        path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))

    return damage


def _other_number(lines: list[str]) -> list[str]:
    """The last line, of which no other line says anything."""
    fields = json.loads(lines[-1])
    fields["event"] = '{"kind":"gaussian","noise_multiplier":99.0}'
    return [*lines[:-1], json.dumps(fields, sort_keys=True, separators=(",", ":"))]


def _short_of_a_byte(state: Path) -> None:
    path = state / LEDGERS[0]
    path.write_bytes(path.read_bytes()[:-1])


def _note_damaged(state: Path) -> None:
    (path,) = state.glob("answered/[0-9a-f]*")
    path.write_bytes(path.read_bytes().replace(b'"answered":2', b'"answered":1'))


LEDGER_LOSSES: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "gone": (_gone("ledger.jsonl"), SiteFolderLost),
    "cut in half": (_lines(lambda lines: lines[: len(lines) // 2]), SiteFolderLost),
    "empty": (_lines(lambda lines: []), SiteFolderLost),
    "another number in its last line": (_lines(_other_number), LedgerBroken),
    "short of its last byte": (_short_of_a_byte, SiteFolderLost),
    "damaged": (_lines(lambda lines: [*lines[:-1], lines[-1][:-9]]), LedgerBroken),
    "gone, with what was answered": (_gone("ledger.jsonl", "answered"), SiteFolderLost),
    "gone, with answers and replies": (
        _gone("ledger.jsonl", "ledger-heldout.jsonl", "answered", "replies"), SiteFolderLost),
}
NOTE_LOSSES: dict[str, Callable[[Path], object]] = {
    "replies and answered": _gone("replies", "answered"),
    "answered": _gone("answered"),
    "a damaged note": _note_damaged,
}


def _refused(party: Party, kind: type[Exception], number: int = 3) -> None:
    """At joining and before computing; nothing is written or spent."""
    before = party.ledgers
    for act in (lambda: party.session().join(RUN), lambda: party.train(number)):
        with pytest.raises(kind) as caught:
            act()
        assert str(party.state) in str(caught.value)  # the way out, for the site's log
    assert party.ledgers == before


def test_a_ledger_that_lost_lines_is_refused_and_goes_on_with_what_its_owner_says(
        party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    for number in (1, 2):
        made.train(number)
    made.session().join(RUN)
    made.keep()
    for name, (damage, kind) in LEDGER_LOSSES.items():
        with made.damaged(damage):
            _refused(made, kind)
            with pytest.raises(CannotAccept, match="--spent"):
                accept_loss(made.state, Owner(None, 1e-5))
            _refused(made, kind)
            assert any("one release of epsilon 5" in done for done in
                       accept_loss(made.state, Owner(5.0, 1e-5))), name
            assert not SiteFolder(made.state).losses(), name
            made.session().join(RUN)
            assert len(made.train(3).blocks) > 0
            spent = Ledger(made.state / LEDGERS[0], None, 1e-5).spent()
            assert 5.0 < spent <= 12.0, name
            made.session().join(RUN)


def test_an_owner_who_does_not_know_spends_nothing_more(party) -> None:  # type: ignore[no-untyped-def]
    made = party(limit=3.5)
    made.train(1)
    (made.state / LEDGERS[0]).unlink()
    accept_loss(made.state, Owner(3.5, 1e-5))
    with pytest.raises(BudgetExceeded):
        made.session().join("cd" * 16)
    with pytest.raises(BudgetExceeded):
        made.train(2)


def test_a_folder_that_is_gone_begins_with_what_its_owner_says(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    made.train(1)
    kept = {name: (made.state / name).read_text() for name in ("split.json", "policy.toml")}
    shutil.rmtree(made.state)
    made.state.mkdir()
    for name, text in kept.items():
        (made.state / name).write_text(text)
    _refused(made, SiteFolderLost)
    accept_loss(made.state, Owner(5.0, 1e-5))
    made.session().join(RUN)
    for name in LEDGERS:
        assert Ledger(made.state / name, None, 1e-5).spent() >= 5.0 * (1 - 1e-6)


def test_a_round_whose_answer_is_not_known_is_never_computed_again(
        party, answers) -> None:  # type: ignore[no-untyped-def]
    """It was, with fresh noise over the same data, for nothing."""
    made = party()
    sent = {number: made.train(number).blocks for number in (1, 2)}
    made.keep()
    for damage in NOTE_LOSSES.values():
        with made.damaged(damage):
            _refused(made, SiteFolderLost, number=2)
            computed = answers["east", "train"]
            accept_loss(made.state, Owner(None, 1e-5))
            made.session().join(RUN)
            stored = any(made.state.glob("replies/*/*.blocks"))
            for number in (1, 2):
                if stored:
                    assert made.train(number).blocks == sent[number]
                    continue
                with pytest.raises(RoundAlreadyAnswered):
                    made.train(number)
            assert answers["east", "train"] == computed
            made.train(3)


def test_a_stored_reply_goes_out_again_after_a_loss(party, answers) -> None:  # type: ignore[no-untyped-def]
    made = party()
    first = made.train(1).blocks
    shutil.rmtree(made.state / "answered")
    accept_loss(made.state, Owner(None, 1e-5))
    assert made.train(1).blocks == first and answers["east", "train"] == 1


def test_other_parts_that_are_gone_are_named(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    made.train(1)
    key = made.session().join(RUN).key_id
    made.keep()
    with made.damaged(_gone("keys")):
        _refused(made, SiteFolderLost)
        accept_loss(made.state, Owner(None, 1e-5))
        made.session().join(RUN)
        assert [path.read_text() for path in (made.state / "keys").iterdir()] == [key]
    with made.damaged(_gone("split.json")):
        _refused(made, SiteFolderLost)
        with pytest.raises(CannotAccept, match='"seed": 0, "holdout_fraction"'):
            accept_loss(made.state, Owner(3.0, 1e-5))
    with made.damaged(lambda state: None):
        assert not SiteFolder(made.state).losses()
        before = sorted(path.read_bytes() for path in made.state.rglob("*") if path.is_file())
        assert accept_loss(made.state, Owner(3.0, 1e-5)) == []
        assert sorted(path.read_bytes() for path in made.state.rglob("*")
                      if path.is_file()) == before


@pytest.mark.parametrize(("groups", "part", "kind"), [
    ({"model": {"head": "bias"}}, "heads", HeadDamaged),
    ({"privacy": {"name": "none"}, "encryption": {"feedback": True, "bits": 4}}, "leftovers",
     SiteFolderLost)], ids=["heads", "leftovers"])
def test_what_a_round_leaves_at_a_site_is_missed_at_joining(  # type: ignore[no-untyped-def]
        party, groups, part: str, kind: type[Exception]) -> None:
    made = party("unlimited", **groups)
    for number in (1, 2):
        made.train(number)
        made.session().join(RUN)
    shutil.rmtree(made.state / part)
    for act in (lambda: made.session().join(RUN), lambda: made.train(3)):
        with pytest.raises(kind, match="begin a new run"):
            act()
    made.session().join("cd" * 16)


def test_a_lost_claim_opens_no_second_sum(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    blocks = made.sum(1)
    made.open(1, blocks)
    shutil.rmtree(made.state / "openings")
    other = (made.train(1, "north").blocks, made.train(1, "west").blocks)
    accumulator = make_accumulator(Agreement.of(made.federation.config).layout("train"))
    for update in other:
        accumulator.fold(update)
    for act in (lambda: made.open(1, accumulator.finish(), (1, 2)), lambda: made.open(1, blocks),
                lambda: made.session().join(RUN), lambda: made.train(2)):
        with pytest.raises(SiteFolderLost, match="openings"):
            act()
    assert any("never opened again" in done
               for done in accept_loss(made.state, Owner(None, 1e-5)))
    for act in (lambda: made.open(1, accumulator.finish(), (1, 2)), lambda: made.open(1, blocks)):
        with pytest.raises(AnotherSumClaimed):
            act()
    made.open(2, made.sum(2))


def test_a_sum_that_claims_a_part_this_site_never_gave_costs_no_key(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    blocks = made.sum(1)
    accumulator = make_accumulator(Agreement.of(made.federation.config).layout("train"))
    for partner in ("north", "west"):
        accumulator.fold(made.train(2, partner).blocks)
    for _ in range(2):
        with pytest.raises(NeverAnswered):
            made.open(2, accumulator.finish())
    made.open(1, blocks)


def test_a_folder_of_an_earlier_version_is_read(party) -> None:  # type: ignore[no-untyped-def]
    made = party()
    for number in (1, 2):
        made.train(number)
    (note,) = made.state.glob("answered/[0-9a-f]*")
    note.write_text("2")
    made.session().join(RUN)
    shutil.rmtree(made.state / "replies")
    with pytest.raises(RoundAlreadyAnswered):
        made.train(2)
    note.write_text("2")
    made.keep()
    with made.damaged(_lines(lambda lines: lines[:-1])):
        _refused(made, SiteFolderLost)
    with made.damaged(lambda state: None):
        made.train(3)
