"""Keys and ciphers across threads, forks and spawned processes; what wiping leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import RoundId
from encryption.wire import HEADER_BYTES
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
from keyholder.secret_bytes import SecretBytes, SecretWiped

ENCRYPTED = ("shared_key", "shared_key_rlwe")
ROUND = RoundId("5eed", 1)


@pytest.mark.parametrize("suite", ENCRYPTED)
def test_threads_share_one_sealer_and_one_opener(federate: Callable, suite: str) -> None:
    """A shared buffer would put one update's public polynomial under another's noise."""
    made = federate(suite, values=200_000)
    sealer = Sealer(made.key, made.layout, 0)
    values = [made.values(i) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        updates = list(pool.map(sealer.seal, values, [ROUND] * len(values)))
    assert len({update[0] for update in updates}) == len(updates)

    def opened(number: int) -> np.ndarray:
        made_here = federate(suite, values=200_000, name=f"guard-{number}")
        made_here.key = made.key
        return made_here.open(made.add([updates[number]]), (0,)).values

    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(opened, range(len(updates))))
    assert all(np.array_equal(got, want) for got, want in zip(sums, values, strict=True))


def _seal_some(key_path: str, suite: str, answers: object) -> None:
    parameters = choose_parameters(suite, 6, 16)
    layout = ControlLayout(100, 6, parameters)
    sealer = Sealer(SharedKey.load(key_path), layout, 0)
    for _ in range(3):
        answers.put(sealer.seal(np.zeros(100, np.int64), ROUND)[0])


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("suite", ENCRYPTED)
@pytest.mark.parametrize("method", ("fork", "spawn"))
def test_worker_processes_never_produce_the_same_bytes(
        federate: Callable, tmp_path: Path, method: str, suite: str) -> None:
    made = federate(suite)
    made.key.save(tmp_path / "key")
    made.seal(made.values(0), 0)  # the parent's state, which a fork copies, is in use
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    workers = [context.Process(target=_seal_some, args=(str(tmp_path / "key"), suite, answers))
               for _ in range(2)]
    for worker in workers:
        worker.start()
    blocks = [answers.get() for _ in range(6)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    size = {"shared_key": 64, "shared_key_rlwe": 32}[suite]
    seeds = {block[HEADER_BYTES : HEADER_BYTES + size] for block in blocks}
    bodies = {block[HEADER_BYTES + size :] for block in blocks}
    assert len(seeds) == len(bodies) == 6


def _in_a_fork(work: Callable[[], bytes]) -> bytes:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        try:
            with os.fdopen(theirs, "wb") as pipe:
                pipe.write(work())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("suite", (*ENCRYPTED, "plaintext"))
def test_a_key_and_its_sealer_serve_after_a_fork(federate: Callable, suite: str) -> None:
    """The child seals with the parent's objects and wipes its copy; the parent's stays whole."""
    made = federate(suite)
    sealer = Sealer(made.key, made.layout, 1)

    def work() -> bytes:
        block = sealer.seal(made.values(1), ROUND)[0]
        made.key.close()
        return block

    theirs = _in_a_fork(work)
    ours = made.seal(made.values(0), 0)
    opened = made.open(made.add([ours, (theirs,)]), (0, 1))
    assert np.array_equal(opened.values, made.values(0) + made.values(1))


def test_a_wiped_key_refuses_to_serve(federate: Callable) -> None:
    made = federate("shared_key_rlwe")
    view = made.key.cipher_key()
    made.key.close()
    made.key.close()
    assert not any(view)
    for use in (lambda: made.key.derive(b"x"), made.key.cipher_key,
                lambda: made.key.save(made.folder), lambda: made.seal(made.values(0), 0)):
        with pytest.raises(SecretWiped, match="load it again") as caught:
            use()
        assert "SecretBytes" not in str(caught.value)
    assert repr(made.key) == f"SharedKey(key_id={made.key.key_id!r})"


def test_secrets_are_read_only_and_wiped_when_dropped() -> None:
    secret = SecretBytes(b"0123456789")
    view = secret.view
    assert view == b"0123456789" and view.readonly and "0123" not in repr(secret)
    del secret
    assert bytes(view) == bytes(10)


IN_USE = """
import gc, sys
import numpy as np
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.types import RoundId
from keyholder.keys import SharedKey
from keyholder.sealer import Sealer
def step(word):
    print(word, flush=True)
    sys.stdin.readline()
key = SharedKey.load(sys.argv[1])
sealer = Sealer(key, ControlLayout(20000, 6, choose_parameters(sys.argv[2], 6, 16)), 0)
sealer.seal(np.zeros(20000, np.int64), RoundId("r", 1))
step("in use")
del sealer
key.close()
gc.collect()
step("wiped")
"""


def _occurrences(pid: int, needle: bytes) -> int:
    """How often the bytes stand in another process's readable memory."""
    found = 0
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            start, stop, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if not rights.startswith("rw"):
                continue
            try:
                memory.seek(int(start, 16))
                found += memory.read(int(stop, 16) - int(start, 16)).count(needle)
            except (OSError, ValueError):  # the kernel's own pages
                continue
    return found


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="reads memory through /proc")
@pytest.mark.parametrize("suite", ENCRYPTED)
def test_nothing_of_a_wiped_key_is_left_in_memory(tmp_path: Path, suite: str) -> None:
    """Another process's memory is searched for the tag key and for the cipher's key."""
    key = SharedKey.generate(choose_parameters(suite, 6, 16))
    key.save(tmp_path / "key")
    needles = [bytes(key._tag_key), bytes(key.cipher_key()[:256]), bytes(key.cipher_key()[-256:])]
    process = subprocess.Popen([sys.executable, "-c", IN_USE, tmp_path / "key", suite],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found = {}
    with process:
        for word in ("in use", "wiped"):
            assert process.stdout.readline().strip() == word
            found[word] = [_occurrences(process.pid, needle) for needle in needles]
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert min(found["in use"]) >= 1  # so the search does find keys
    assert found["wiped"] == [0, 0, 0]
