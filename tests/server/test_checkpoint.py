"""What an operator keeps of a run, whole, damaged, or of another configuration."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.schema import Config, FederationConfig, InvalidConfig, StrategyConfig
from server.checkpoint import (
    CheckpointDamaged,
    CheckpointNotWritten,
    Checkpoints,
    Saved,
    checkpoints,
)
from strategies.fold import Folded
from strategies.global_model import RevealedModel, SealedModel
from strategies.optimiser import ServerState
from strategies.receipts import Receipt

RUN = "ab" * 16


def _saved(number: int) -> Saved:
    return Saved(RUN, number, "data", [{"val/auc": float("nan")}] * number, {"rounds": number},
                 8.0, 1.5, b"model" * number)


def _folded(number: int, kind: str = "train") -> Folded:
    return Folded(kind, number, "model", ("east", "west"), {"north": "late"},
                  (b"one", b"", b"three"), 5.0, {"fold": 0.1})


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path, Config())
    for number in range(4):
        kept.save(_saved(number))
        kept.keep(_folded(number + 1))
    return kept


def test_the_newest_checkpoint_and_its_sum_come_back(kept: Checkpoints, tmp_path: Path) -> None:
    again = Checkpoints(tmp_path, Config())
    saved = again.load()
    assert saved is not None
    assert (saved.run, saved.round, saved.model) == (RUN, 3, b"model" * 3)
    assert np.isnan(saved.history[2]["val/auc"])
    assert again.folded("train", 4) == _folded(4)
    assert again.folded("test", 4) is None
    assert again.folded("train", 5) is None


def test_two_of_each_are_kept_and_nothing_after_the_end(kept: Checkpoints) -> None:
    names = sorted(path.name for path in kept.place.iterdir())
    assert names == ["round-000002.checkpoint", "round-000003.checkpoint",
                     "sum-000003.folded", "sum-000004.folded"]
    kept.finished()
    assert not kept.place.exists() and kept.load() is None


def _receipt(number: int) -> Receipt:
    return Receipt(number, (0, 2), np.arange(number), bytes([number]) * 32)


def test_every_receipt_is_kept_for_who_comes_late(kept: Checkpoints, tmp_path: Path) -> None:
    for number in range(1, 6):
        kept.keep_receipt(_receipt(number))
    again = Checkpoints(tmp_path, Config())
    again.load()

    def rounds(after: int, last: int) -> list[int]:
        return [receipt.round for receipt in again.receipts(after, last)]

    assert rounds(0, 5) == [1, 2, 3, 4, 5] and rounds(2, 4) == [3, 4] and rounds(3, 3) == []
    (third,) = again.receipts(2, 3)
    assert (third.members, third.mac, list(third.integers)) == ((0, 2), b"\3" * 32, [0, 1, 2])
    damaged = kept.place / "opened-000002.receipt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert rounds(0, 5) == [3, 4, 5] and rounds(0, 2) == []


def test_receipts_of_another_run_are_left_out(kept: Checkpoints) -> None:
    kept.keep_receipt(_receipt(1))
    kept.save(replace(_saved(4), run="cd" * 16))
    assert kept.receipts(0, 1) == ()


@pytest.mark.parametrize("harm", [
    lambda content: content[:-1],
    lambda content: content[:20],
    lambda content: b"",
    lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
])
def test_a_damaged_checkpoint_falls_back_and_two_end_the_run(kept: Checkpoints, harm) -> None:
    newest = kept.place / "round-000003.checkpoint"
    newest.write_bytes(harm(newest.read_bytes()))
    saved = kept.load()
    assert saved is not None and saved.round == 2
    older = kept.place / "round-000002.checkpoint"
    older.write_bytes(harm(older.read_bytes()))
    with pytest.raises(CheckpointDamaged, match="spends privacy again"):
        kept.load()


def test_a_checkpoint_under_another_name_is_left_out(kept: Checkpoints) -> None:
    (kept.place / "round-000003.checkpoint").replace(kept.place / "round-000009.checkpoint")
    saved = kept.load()
    assert saved is not None and saved.round == 2


def test_a_folder_under_another_configurations_name_is_left_out(
    kept: Checkpoints, tmp_path: Path
) -> None:
    other = Checkpoints(tmp_path, replace(Config(), seed=3))
    kept.place.rename(other.place)
    with pytest.raises(CheckpointDamaged):
        other.load()


def test_a_damaged_sum_is_collected_anew(kept: Checkpoints) -> None:
    path = kept.place / "sum-000004.folded"
    path.write_bytes(path.read_bytes()[:-1])
    kept.load()
    assert kept.folded("train", 4) is None


def test_a_sum_of_another_run_is_not_used(kept: Checkpoints) -> None:
    kept.save(replace(_saved(3), run="cd" * 16))
    assert kept.folded("train", 4) is None


def test_another_configuration_has_its_own_and_is_named(kept: Checkpoints, tmp_path: Path) -> None:
    other = Checkpoints(tmp_path, replace(Config(), strategy=StrategyConfig(rounds=7), seed=3))
    assert other.load() is None
    (named,) = other.others()
    assert "seed, strategy.rounds" in named and str(kept.place) in named
    assert kept.others() == []


def test_a_run_of_another_version_does_not_keep_others_from_beginning(tmp_path: Path) -> None:
    old = Checkpoints(tmp_path, Config())
    old._config = old._config.replace('"seed"', '"sprout"')
    old.save(_saved(1))
    (named,) = Checkpoints(tmp_path, replace(Config(), seed=1)).others()
    assert "another version" in named


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    with checkpoints(tmp_path, Config()):
        with (pytest.raises(InvalidConfig, match=r"another process.*name another folder"),
              checkpoints(tmp_path, Config())):
            pass
        with checkpoints(tmp_path, replace(Config(), seed=1)) as other:
            assert other.load() is None


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (pytest.raises(InvalidConfig, match=r"federation\.folder: nothing can be kept in"),
          checkpoints(tmp_path / "file", Config())):
        pass


DEPLOYED = replace(Config(), federation=FederationConfig(name="deployment"))


def test_an_operator_hears_of_its_own_key_and_of_no_second_run(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, DEPLOYED)
    kept.save(_saved(1))
    (kept.place / "round-000001.checkpoint").write_bytes(b"")
    with pytest.raises(CheckpointDamaged, match="state-path: no checkpoint in"):
        kept.load()
    with checkpoints(tmp_path, DEPLOYED):
        with (pytest.raises(InvalidConfig, match="state-path: another process") as refused,
              checkpoints(tmp_path, DEPLOYED)):
            pass
        assert "stop it" in str(refused.value)
        assert "name another folder" not in str(refused.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_folder_that_takes_nothing_more_is_named_with_the_cure(
    number: int, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        for write in (lambda: kept.save(_saved(4)), lambda: kept.keep(_folded(5))):
            with pytest.raises(CheckpointNotWritten) as stopped:
                write()
            assert str(kept.place) in str(stopped.value)
            assert os.strerror(number) in str(stopped.value)
            assert "the same command then goes on" in str(stopped.value)
    saved = kept.load()
    assert saved is not None and saved.round == 3


def test_models_survive_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    state = ServerState(7, *rng.normal(size=(4, 5)), averaged=2)
    start = RevealedModel(ServerState.start(np.zeros(5)), StrategyConfig())
    restored = start.restored(RevealedModel(state, StrategyConfig()).packed()).server
    assert (restored.round, restored.averaged) == (7, 2)
    for name in ("model", "velocity", "second", "mean"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(state, name))
    sealed = SealedModel(7, b"model", b"state")
    assert SealedModel().restored(sealed.packed()) == sealed
