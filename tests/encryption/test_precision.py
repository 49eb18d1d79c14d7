"""The measured distance from the grid is what the formula predicts, on kind and unkind inputs."""

import math

import numpy as np
import pytest
import tenseal.sealapi as seal

from encryption.ciphertext import MemoryFile, dump_fresh, load_fresh, seal_context
from encryption.packing import pack
from encryption.parameters import CKKSParameters
from encryption.precision import ERROR_VARIANCE, predicted_deviation, tail_factor
from encryption.wire import HEADER_BYTES, Kind, Place
from keyholder.keys import SharedKey
from keyholder.seal_keys import load_secret


def _deviations(parameters: CKKSParameters, updates: list[np.ndarray], stretch: float = 1.0
                ) -> np.ndarray:
    """(N,) reals of the decrypted sum minus the exact ones, in grid steps."""
    context = seal_context(parameters)
    secret = load_secret(SharedKey.generate(parameters).cipher_key(), parameters)
    encoder, encryptor = seal.CKKSEncoder(context), seal.Encryptor(context, secret)
    evaluator, plain, total = seal.Evaluator(context), seal.Plaintext(), None
    with MemoryFile() as file:
        for update in updates:
            slots = pack(update, parameters)[0] * stretch
            encoder.encode(slots.tolist(), float(parameters.scale), plain)
            place = Place(Kind.FRESH, 1, 0, 0, 1)
            block = dump_fresh(encryptor.encrypt_symmetric(plain), parameters, place, file)
            fresh = load_fresh(memoryview(block)[HEADER_BYTES:], parameters, file)
            if total is None:
                total = fresh
            else:
                evaluator.add_inplace(total, fresh)
    seal.Decryptor(context, secret).decrypt(total, plain)
    exact = pack(np.sum(updates, axis=0), parameters)[0] * stretch
    off = np.array(encoder.decode_complex(plain)) - exact
    return np.concatenate((off.real, off.imag))


def _peak(parameters: CKKSParameters, low: int, high: int) -> np.ndarray:
    """Digits whose slots all point along X^(N/4) as far as they can. Its values are the odd
    eighth roots of unity, so its coefficient reaches sqrt(2) A scale, the proven bound."""
    degree = parameters.ring_degree
    powers = [pow(3, j, 2 * degree) for j in range(degree // 2)]
    along = np.exp(1j * np.pi / 4 * np.array(powers))
    signs = np.stack((along.real, along.imag)) > 0
    parts = np.broadcast_to(np.where(signs, high, low), (parameters.digits_per_real, *signs.shape))
    return parts.reshape(-1)


@pytest.mark.parametrize(("clients", "bits"), [(1, 8), (2, 20), (6, 8), (6, 16), (64, 16), (2, 32),
                                               (6, 28), (100, 32)])
def test_the_largest_coefficient_does_not_wrap_around(clients: int, bits: int) -> None:
    parameters = CKKSParameters.for_cohort(clients, bits)
    peak = _peak(parameters, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    off = _deviations(parameters, [peak] * clients)
    assert np.max(np.abs(off)) < parameters.grid_bound(clients)


def test_that_coefficient_has_no_room_left() -> None:
    """One part in a hundred more wraps around, so the test above tests the true limit."""
    parameters = CKKSParameters.for_cohort(6, 16)
    peak = _peak(parameters, -(2**15), 2**15 - 1)
    assert np.max(np.abs(_deviations(parameters, [peak] * 6, stretch=1.01))) > 1000


@pytest.mark.parametrize(("clients", "bits"), [(1, 8), (6, 8), (6, 16), (64, 8), (64, 16), (2, 32),
                                               (6, 20), (6, 25), (6, 28), (100, 21), (100, 29),
                                               (100, 32)])
@pytest.mark.parametrize("kind", ("random", "identical", "signs", "extreme", "constant"))
def test_noise_is_as_predicted(clients: int, bits: int, kind: str) -> None:
    parameters = CKKSParameters.for_cohort(clients, bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    random, size = np.random.default_rng(bits), parameters.values_per_block
    updates = [random.integers(low, high + 1, size) for _ in range(clients)]
    if kind != "random":
        one = {"identical": updates[0], "signs": random.choice([low, high], size),
               "extreme": np.full(size, low), "constant": np.full(size, 3)}[kind]
        updates = [one.astype(np.int64)] * clients
    off = _deviations(parameters, updates)
    predicted = parameters.predicted_deviation(clients)
    measured = float(np.sqrt(np.mean(off**2)))
    # 4,096 reals know their deviation to 1.1%; rounding errors of one plaintext to as much again.
    assert measured <= 1.07 * predicted
    noise_alone = math.sqrt(clients * ERROR_VARIANCE * 4096 / 2) / parameters.scale
    assert measured >= 0.93 * noise_alone
    if kind in ("identical", "signs"):
        # The doubles' part is a bound, reached by no input; wide digits come close to it.
        assert measured >= 0.9 * predicted_deviation(
            ring_degree=4096, scale=parameters.scale, clients=clients, magnitude=0)
    assert np.max(np.abs(off)) < 0.6 * parameters.grid_bound(clients)


def test_errors_are_seals_centred_binomial() -> None:
    """Variance 10.5 a coefficient, as the formula takes it: measured over an empty update."""
    parameters = CKKSParameters.for_cohort(2, 8)
    zero = np.zeros(parameters.values_per_block, np.int64)
    squares = [np.mean(_deviations(parameters, [zero]) ** 2) for _ in range(40)]
    variance = float(np.mean(squares)) * parameters.scale**2 / 2048
    assert variance == pytest.approx(ERROR_VARIANCE, rel=0.02)


def test_the_tail_keeps_a_whole_run() -> None:
    assert 2 * math.exp(-tail_factor() ** 2 / 2) * 2**32 == pytest.approx(2**-40)
    assert tail_factor() == pytest.approx(10.06, abs=0.01)
