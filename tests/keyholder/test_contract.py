"""What every suite keeps: the opened sum is the exact integer sum, and nothing else opens."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encryption.types import RoundId
from keyholder.keys import KeyFileError, SharedKey
from keyholder.sealer import Sealer

SUITES = ("shared_key", "shared_key_rlwe", "plaintext")
INPUTS = ("random", "identical", "low", "high", "signs", "constant", "zero")


def _updates(kind: str, clients: int, bits: int, size: int) -> list[np.ndarray]:
    random, low, high = np.random.default_rng(clients), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    make = {
        "random": lambda: random.integers(low, high + 1, size),
        "low": lambda: np.full(size, low),
        "high": lambda: np.full(size, high),
        "signs": lambda: random.choice([low, high], size),
        "constant": lambda: np.full(size, 3),
        "zero": lambda: np.zeros(size),
    }
    if kind == "identical":
        return [random.integers(low, high + 1, size)] * clients
    return [make[kind]().astype(np.int64) for _ in range(clients)]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(("clients", "bits"), [(1, 8), (2, 20), (6, 8), (6, 16), (64, 10),
                                               (64, 16), (2, 32), (6, 22), (6, 29),
                                               (100, 24), (100, 32)])
def test_the_sum_is_exact(federate: Callable, suite: str, kind: str, clients: int, bits: int
                          ) -> None:
    one_block = 4096
    federation = federate(suite, clients, bits, values=2 * one_block - 300)
    updates = _updates(kind, clients, bits, federation.layout.values)
    blocks = federation.add([federation.seal(v, i) for i, v in enumerate(updates)])
    opened = federation.open(blocks, range(clients), minimum=clients)
    assert opened.values.dtype == np.int64
    assert np.array_equal(opened.values, sum(updates))
    assert opened.partners == tuple(range(clients))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("clients", range(1, 7))
def test_every_part_of_a_cohort_opens(federate: Callable, suite: str, clients: int) -> None:
    federation = federate(suite, 6, 10, values=9000)
    members = sorted(np.random.default_rng(clients).permutation(6)[:clients].tolist())
    updates = [federation.values(i) for i in members]
    blocks = federation.add(
        [federation.seal(v, i) for i, v in zip(members, updates, strict=True)])
    opened = federation.open(blocks, members)
    assert np.array_equal(opened.values, sum(updates))
    assert opened.partners == tuple(members)


@pytest.mark.parametrize("suite", SUITES)
def test_an_opening_is_repeated_word_for_word(federate: Callable, suite: str) -> None:
    federation = federate(suite)
    blocks = federation.add([federation.seal(federation.values(i), i) for i in range(3)])
    first = federation.open(blocks, range(3))
    again = federation.open(blocks, range(3))
    assert np.array_equal(first.values, again.values) and first.partners == again.partners


@pytest.mark.parametrize("suite", SUITES)
def test_rounds_are_separate(federate: Callable, suite: str) -> None:
    federation = federate(suite)
    for number in (1, 2, 3):
        round_id = RoundId("5eed", number)
        values = [federation.values(10 * number + i) for i in range(2)]
        blocks = federation.add(
            [federation.seal(v, i, round_id) for i, v in enumerate(values)])
        assert np.array_equal(federation.open(blocks, (0, 1), round_id).values, sum(values))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("change", ("above", "below", "float", "short", "matrix"))
def test_values_that_do_not_fit_are_refused_without_data(federate: Callable, suite: str,
                                                         change: str) -> None:
    federation = federate(suite)
    values = federation.values(0)
    if change == "above":
        values[7] = 32768
    elif change == "below":
        values[7] = -32769
    elif change == "float":
        values = values.astype(np.float64)
    elif change == "short":
        values = values[1:]
    else:
        values = values[None]
    with pytest.raises(ValueError, match=r"signed bits|values of type int64") as caught:
        federation.seal(values, 0)
    assert "3276" not in str(caught.value)


@pytest.mark.parametrize("suite", SUITES)
def test_a_stale_key_says_what_to_do(federate: Callable, suite: str) -> None:
    federation = federate(suite)
    other = federate(suite, bits=12)
    with pytest.raises(KeyFileError, match="provision a key"):
        Sealer(other.key, federation.layout, 0)
    with pytest.raises(KeyFileError, match="provision a key"):
        federation.open((), (0, 1), key=other.key)
    with pytest.raises(ValueError, match="partner_index"):
        Sealer(federation.key, federation.layout, 6)


def test_sealing_twice_never_gives_the_same_bytes(federate: Callable) -> None:
    federation = federate("shared_key")
    values = federation.values(0)
    assert federation.seal(values, 0) != federation.seal(values, 0)


def test_threads_share_a_key(federate: Callable) -> None:
    federation = federate("shared_key", values=20_000)
    values = [federation.values(i) for i in range(6)]
    with ThreadPoolExecutor(4) as pool:
        updates = list(pool.map(federation.seal, values, range(6)))
    blocks = federation.add(updates)
    assert np.array_equal(federation.open(blocks, range(6)).values, sum(values))


def test_a_key_serves_after_a_restart(federate: Callable, tmp_path) -> None:
    federation = federate("shared_key")
    values = [federation.values(i) for i in range(2)]
    blocks = federation.add([federation.seal(v, i) for i, v in enumerate(values)])
    federation.key.save(tmp_path / "k")
    opened = federation.open(blocks, (0, 1), key=SharedKey.load(tmp_path / "k"))
    assert np.array_equal(opened.values, sum(values))
