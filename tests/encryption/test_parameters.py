"""Parameters choose themselves, explain what cannot be, and never change their fingerprint."""

import dataclasses
import math
from itertools import pairwise

import pytest

from encryption.parameters import (
    CKKSParameters,
    ImpossibleParameters,
    PlaintextParameters,
    RLWEParameters,
    choose_parameters,
    most_bits,
)
from encryption.precision import ERROR_VARIANCE, tail_factor

COHORTS = (1, 2, 6, 16, 64, 100, 1000)
BITS = (8, 10, 12, 16, 17, 20, 24, 28, 31)
SUITES = ("shared_key", "shared_key_rlwe", "plaintext")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("clients", COHORTS)
def test_every_cohort_passes_the_four_checks(clients: int, bits: int) -> None:
    found = CKKSParameters.for_cohort(clients, bits)
    assert found.security_bits >= 128
    assert clients * 2 ** (bits - 1) <= found.radix // 2
    noise = 22 * clients
    assert math.sqrt(2) * found.magnitude * found.scale + noise < found.prime / 2
    assert tail_factor() * found.predicted_deviation(clients) < 0.5
    assert found.magnitude < 2**52


@pytest.mark.parametrize(
    ("clients", "bits", "most"),
    [(6, 8, 1.75), (6, 10, 2.1667), (6, 16, 3.25), (64, 8, 2.5), (64, 10, 3.0), (64, 16, 3.75)])
def test_bytes_per_value_do_not_grow(clients: int, bits: int, most: float) -> None:
    found = CKKSParameters.for_cohort(clients, bits)
    assert found.prime_bits / 8 / found.digits_per_real <= most + 1e-3


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("clients", COHORTS)
def test_every_rlwe_cohort_passes_its_checks(clients: int, bits: int) -> None:
    """Each condition written out again, and one bit more of either cut would break it."""
    found = RLWEParameters.for_cohort(clients, bits)
    assert found.security_bits == 192
    assert clients * 2 ** (bits - 1) <= found.radix // 2
    assert found.magnitude * found.step + found.step // 2 < 2**63

    def bound(cut: int, sum_cut: int) -> float:
        rounding = [(4**c + 2) / 12 if c else 0 for c in (cut, sum_cut)]
        variance = clients * (ERROR_VARIANCE + rounding[0]) + 4096 * rounding[1]
        return tail_factor() * math.sqrt(variance)

    assert bound(found.cut, found.sum_cut) < found.step / 2 <= bound(found.cut + 1, 0)
    assert found.step / 2 <= bound(found.cut, found.sum_cut + 1)
    assert found.grid_bound(clients) < 0.5


@pytest.mark.parametrize(
    ("clients", "bits", "most"),
    [(6, 8, 1.43), (6, 16, 2.5), (64, 8, 2.0), (64, 16, 3.13), (1000, 16, 3.75)])
def test_rlwe_bytes_per_value_do_not_grow(clients: int, bits: int, most: float) -> None:
    found = RLWEParameters.for_cohort(clients, bits)
    assert found.kept_bits / 8 / found.digits_per_coefficient <= most


@pytest.mark.parametrize("clients", COHORTS)
def test_rlwe_is_never_larger_than_ckks(clients: int) -> None:
    for bits in BITS:
        ours, theirs = (choose_parameters(suite, clients, bits)
                        for suite in ("shared_key_rlwe", "shared_key"))
        assert (ours.kept_bits / ours.digits_per_coefficient
                < theirs.prime_bits / theirs.digits_per_real)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((64, 16, 3), "wrap around"), ((100, 12, 3), "noise would reach"), ((6, 16, 0), "1 digit")])
def test_each_rlwe_check_refuses_by_name(arguments: tuple[int, int, int], reason: str) -> None:
    with pytest.raises(ImpossibleParameters, match=reason):
        RLWEParameters(*arguments)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("clients", (6, 64))
def test_nothing_cheaper_passes(clients: int, bits: int) -> None:
    best = CKKSParameters.for_cohort(clients, bits)
    for prime_bits in (40, 44, 48, 52, 56, 60):
        for digits in range(1, 9):
            if prime_bits / digits < best.prime_bits / best.digits_per_real:
                with pytest.raises(ImpossibleParameters):
                    CKKSParameters(clients, bits, prime_bits, digits)


def test_more_clients_or_bits_never_cost_less() -> None:
    def cost(clients: int, bits: int) -> float:
        found = CKKSParameters.for_cohort(clients, bits)
        return found.prime_bits / found.digits_per_real

    assert all(cost(a, bits) <= cost(b, bits)
               for bits in BITS for a, b in pairwise(COHORTS))
    assert all(cost(k, a) <= cost(k, b)
               for k in COHORTS for a, b in pairwise(BITS))


@pytest.mark.parametrize(
    ("clients", "bits", "advice"),
    [(0, 8, "at least 1"), (6, 1, "2..32"), (6, 33, "2..32"), (2**17, 32, "fewer encryption.bits"),
     (2**34, 16, "fewer encryption.bits or fewer clients")])
@pytest.mark.parametrize("suite", SUITES)
def test_the_impossible_explains_itself(suite: str, clients: int, bits: int, advice: str) -> None:
    with pytest.raises(ImpossibleParameters, match=advice):
        choose_parameters(suite, clients, bits)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((64, 16, 60, 3), "doubles run out"), ((64, 8, 40, 3), "wrap around"),
     ((64, 16, 56, 2), "noise would reach the grid"), ((64, 16, 61, 2), "prime_bits")])
def test_each_check_refuses_by_name(arguments: tuple[int, int, int, int], reason: str) -> None:
    with pytest.raises(ImpossibleParameters, match=reason):
        CKKSParameters(*arguments)


def test_security_is_checked_against_seals_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import tenseal.sealapi as seal

    assert CKKSParameters.for_cohort(64, 16).security_bits == 192
    monkeypatch.setattr(seal.CoeffModulus, "MaxBitCount", lambda *_: 30)
    with pytest.raises(ImpossibleParameters, match="security"):
        CKKSParameters.for_cohort(64, 16)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("clients", (2, 100, 1000, 10_000))
def test_the_widest_digit_passes_and_one_more_bit_does_not(suite: str, clients: int) -> None:
    widest = most_bits(suite, clients)
    assert choose_parameters(suite, clients, widest).bits == widest
    assert widest == 32 or clients >= 1000
    with pytest.raises(ImpossibleParameters):
        choose_parameters(suite, clients, widest + 1)


def test_no_digit_sums_more_clients_than_there_can_be() -> None:
    with pytest.raises(ImpossibleParameters, match="fewer clients"):
        most_bits("shared_key", 2**50)


@pytest.mark.parametrize(("clients", "bits", "word"), [(2, 31, 4), (2, 32, 8), (100, 25, 4),
                                                       (100, 26, 8)])
def test_plaintext_sums_have_words_that_hold_them(clients: int, bits: int, word: int) -> None:
    parameters = PlaintextParameters(clients, bits)
    assert parameters.sum_word_bytes == word
    assert clients * 2 ** (bits - 1) <= 2 ** (8 * word - 1)


def test_an_unknown_suite_names_the_known_ones() -> None:
    with pytest.raises(ImpossibleParameters, match="shared_key, shared_key_rlwe, plaintext"):
        choose_parameters("bfv", 6, 8)


def test_fingerprints_differ_and_stay() -> None:
    made = [choose_parameters(suite, k, b) for suite in SUITES
            for k in COHORTS for b in BITS]
    assert len({one.fingerprint for one in made}) == len(made)
    assert CKKSParameters.for_cohort(6, 16).fingerprint == (
        "e5167c860d70907a2c63ae547f9e0e8831026cac06924c535f8292a58e1b7aad")
    assert RLWEParameters.for_cohort(6, 16).fingerprint == (
        "b4d0766951094351a0eaf70289c62c0afe30800caa6846d46a338536b82c9736")
    assert PlaintextParameters(6, 16).fingerprint == (
        "e3084ae07437facb7c9b0fddc10925990e28fb106a22d16b1b9ce747d927ad38")


@pytest.mark.parametrize("suite", SUITES)
def test_parameters_are_frozen(suite: str) -> None:
    found = choose_parameters(suite, 6, 16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.bits = 8  # type: ignore[misc]
    assert found == choose_parameters(suite, 6, 16)
    assert hash(found) == hash(choose_parameters(suite, 6, 16))
