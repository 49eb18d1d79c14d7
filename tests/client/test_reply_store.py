from pathlib import Path

import pytest

from client.reply_store import ReplyStore, RoundAlreadyAnswered
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
