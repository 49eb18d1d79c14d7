from pathlib import Path

import pytest

from client.reply_store import ReplyDamaged, ReplyStore, RoundAlreadyAnswered
from encryption.types import RoundId


def test_the_same_bytes_come_back_after_a_restart(tmp_path: Path) -> None:
    blocks = (b"one", b"", b"three" * 1000)
    ReplyStore(tmp_path).put(RoundId("run", 1), blocks)
    assert ReplyStore(tmp_path).get(RoundId("run", 1)) == blocks
    assert ReplyStore(tmp_path).get(RoundId("run", 2)) is None
    assert ReplyStore(tmp_path).get(RoundId("other", 1)) is None


def test_an_old_round_is_refused_rather_than_answered_anew(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path)
    for number in (1, 2, 3):
        store.put(RoundId("run", number), (b"x",))
    with pytest.raises(RoundAlreadyAnswered):
        store.get(RoundId("run", 1))
    assert store.get(RoundId("run", 3)) == (b"x",)


def test_a_run_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    ReplyStore(tmp_path / "replies").put(RoundId("../../escape", 1), (b"x",))
    assert not (tmp_path / "escape").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["replies"]


def test_a_damaged_reply_is_refused_and_the_round_stays_answered(tmp_path: Path) -> None:
    """Silently cut bytes, or a fresh answer, would be worse than none."""
    store = ReplyStore(tmp_path)
    store.put(RoundId("run", 1), (b"one", b"two" * 100))
    (path,) = tmp_path.rglob("*.blocks")
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in (0, 3, 31, 32, 36, 50, len(whole) - 1)]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]
                for place in (0, 32, 36, 43, 60, len(whole) - 1)] + [whole + b"x"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ReplyDamaged):
            store.get(RoundId("run", 1))
    path.write_bytes(whole)
    assert store.get(RoundId("run", 1)) == (b"one", b"two" * 100)
