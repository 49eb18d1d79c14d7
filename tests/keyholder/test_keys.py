"""Key files are whole, private and named in every error; keys show nothing of themselves."""

import copy
import logging
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encryption.ciphertext import SEED_BYTES
from encryption.parameters import choose_parameters
from encryption.wire import HEADER_BYTES
from keyholder.keys import KeyFileError, SharedKey

SUITES = ("shared_key", "plaintext")


@pytest.fixture(params=SUITES)
def key(request: pytest.FixtureRequest) -> SharedKey:
    return SharedKey.generate(choose_parameters(request.param, 6, 16))


def test_a_key_survives_its_file(key: SharedKey, tmp_path: Path) -> None:
    key.save(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["k"]
    loaded = SharedKey.load(tmp_path / "k")
    assert (loaded.key_id, loaded.fingerprint) == (key.key_id, key.fingerprint)
    assert loaded.derive(b"x") == key.derive(b"x") != key.derive(b"y")


def test_a_key_is_never_overwritten(key: SharedKey, tmp_path: Path) -> None:
    key.save(tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"):
        key.save(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"no key file .*nowhere"):
        SharedKey.load(tmp_path / "nowhere")
    with pytest.raises(KeyFileError, match="cannot be read"):
        SharedKey.load(tmp_path)


@pytest.mark.parametrize("mode", (0o644, 0o640, 0o604, 0o620, 0o660, 0o601, 0o700 | 0o010))
def test_a_key_that_others_can_use_is_refused_with_the_cure(
        key: SharedKey, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k"
    key.save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        SharedKey.load(path)
    path.chmod(0o400)
    assert SharedKey.load(path).key_id == key.key_id


def test_a_key_of_somebody_else_is_refused_with_the_cure(
        key: SharedKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can read it, and put another in its place; root can both anyway."""
    key.save(tmp_path / "k")
    owner = (tmp_path / "k").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    stated = os.fstat

    def of_user(descriptor: int) -> os.stat_result:
        return os.stat_result((*tuple(stated(descriptor))[:4], 7, *tuple(stated(descriptor))[5:]))

    monkeypatch.setattr(os, "fstat", of_user)
    with pytest.raises(KeyFileError, match=f"chown {owner + 1} "):
        SharedKey.load(tmp_path / "k")


def test_every_truncation_and_bit_flip_is_refused(key: SharedKey, tmp_path: Path) -> None:
    key.save(tmp_path / "k")
    whole = (tmp_path / "k").read_bytes()
    damaged = [whole[:cut] for cut in (0, 1, 7, 8, 40, 75, 76, 100, len(whole) - 1)]
    for place in (0, 7, 8, 40, 73, len(whole) // 2, len(whole) - 1):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    damaged.append(whole + b"\0")
    (tmp_path / "d").touch(0o600)
    for content in damaged:
        (tmp_path / "d").write_bytes(content)
        with pytest.raises(KeyFileError, match="copy the federation's key") as caught:
            SharedKey.load(tmp_path / "d")
        assert str(tmp_path / "d") in str(caught.value)


def test_nothing_secret_shows(key: SharedKey, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").info("%s %r", key, [key])
    shown = f"{key} {key!r} {vars(type(key))} {caplog.text}"
    for secret in (bytes(key._tag_key), bytes(key.cipher_key()[:32])):
        if secret:
            assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
    assert repr(key) == f"SharedKey(key_id='{key.key_id}')"


@pytest.mark.parametrize("use", (pickle.dumps, copy.copy, copy.deepcopy))
def test_keys_are_not_pickled_or_copied(key: SharedKey, use: Callable) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        use(key)


def test_keys_differ() -> None:
    parameters = choose_parameters("shared_key", 6, 16)
    keys = [SharedKey.generate(parameters) for _ in range(3)]
    assert len({one.key_id for one in keys}) == len({bytes(one.cipher_key()) for one in keys}) == 3


def test_the_secret_is_ternary() -> None:
    """What SEAL drew is what the file holds: encrypting and opening need nothing else."""
    parameters = choose_parameters("shared_key", 6, 16)
    key = SharedKey.generate(parameters)
    residues = np.frombuffer(key.cipher_key(), "<u8")
    assert residues.shape == (4096,) and residues.max() < parameters.prime
    assert len(np.unique(residues)) > 4000  # NTT form


@pytest.mark.filterwarnings("ignore:This process")
def test_forked_processes_never_share_randomness(federate: Callable) -> None:
    """Four children of one process, which itself encrypted before, and the parent after."""
    federation = federate("shared_key")
    values = federation.values(0)
    blocks = [federation.seal(values, 0)[0]]
    for _ in range(4):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(ours)
            with os.fdopen(theirs, "wb") as pipe:
                pipe.write(federation.seal(values, 0)[0])
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            blocks.append(pipe.read())
        assert os.waitpid(child, 0)[1] == 0
    blocks.append(federation.seal(values, 0)[0])
    seeds = {block[HEADER_BYTES : HEADER_BYTES + SEED_BYTES] for block in blocks}
    bodies = {block[HEADER_BYTES + SEED_BYTES :] for block in blocks}
    assert len(seeds) == len(bodies) == 6
