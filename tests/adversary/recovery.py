"""Key recovery from decryptions that were not rounded, after Li and Micciancio, "On the Security of
Homomorphic Encryption on Approximate Numbers" (EUROCRYPT 2021, eprint 2020/1533, section 4).

A ciphertext (c0, c1) decrypts to m' = c0 + c1 s in Z_q[X]/(X^N + 1). Who learns m' to the last
bit, noise included, has a linear equation in the key: s = (m' - c0) / c1. A CKKS library that
returns doubles gives m' away, because encoding the doubles again and rounding finds the integers
of m'. Where only the real parts of the slots are returned, as TenSEAL's CKKSVector does, one
decryption tells m' + conj(m'), conj being X -> 1/X, and two of them make, for each pair of
conjugate roots, two equations in two unknowns.

With m' rounded to the grid the equation is off by the noise: c0 - D d = -c1 s + e is an ordinary
sample of RLWE, and what these functions then return is as good as random. They never know whether
they succeeded; ``is_ternary`` tells.

Rings: a prime q, where ciphertexts come evaluated at the roots of X^N + 1 in SEAL's order (place
i holds the root psi^(2 r(i) + 1), r reversing the log2 N bits of i), so that everything happens
place by place; and q = 2^64 in coefficients, where s = -1, 0, 1 is known from its residues mod 4.
Numbers of 60 bits need products of 120: arrays hold Python's integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.object_]
Equation = tuple[Integers, Integers, Integers]
"""c0, c1 and what is believed to be c0 + c1 s, each (N,)."""


def from_phase(equation: Equation, prime: int) -> Integers:
    """One exact decryption -> the key, (N,) coefficients in (-q/2, q/2)."""
    c0, c1, phase = equation
    return coefficients((phase - c0) * _inverses(c1, prime) % prime, prime)


def from_real_parts(first: Equation, second: Equation, prime: int) -> Integers:
    """Two decryptions of which only m' + conj(m') is known -> the key, as :func:`from_phase`."""
    other = _conjugates(len(first[0]))
    rows = [(c1, c1[other], doubled - c0 - c0[other]) for c0, c1, doubled in (first, second)]
    (a, b, left), (c, d, right) = rows
    determinant = (a * d - b * c) % prime
    return coefficients((left * d - b * right) * _inverses(determinant, prime) % prime, prime)


def from_words(c0: NDArray[np.uint64], c1: NDArray[np.uint64], phase: NDArray[np.uint64]
               ) -> Integers:
    """One exact decryption c0 - c1 s = phase mod 2^64, coefficients -> the key mod 4, in -1..2.

    Low bits that c1 lacks are taken off both sides. Raises ZeroDivisionError where c1 then is no
    unit, as half of all polynomials: X^N + 1 is (X + 1)^N mod 2, so a unit is what has an odd
    number of odd coefficients. Its inverse mod 2 is its power N - 1, a product of its squares
    (the power N of a unit is 1), and one step of Newton's lifts it to mod 4.
    """
    low = np.uint64(min(int(word & -word).bit_length() - 1 for word in c1.tolist() if word))
    a, b = ((words >> low).astype(np.int64) & 3 for words in (c1, c0 - phase))
    if int(a.sum()) % 2 == 0:
        raise ZeroDivisionError("c1 is not a unit")
    inverse, power = np.eye(1, len(a), dtype=np.int64)[0], a % 2
    for _ in range(len(a).bit_length() - 1):
        inverse, power = multiply(inverse, power) % 2, multiply(power, power) % 2
    inverse = multiply(inverse, 2 * np.eye(1, len(a), dtype=np.int64)[0] - multiply(a, inverse)) % 4
    found = multiply(inverse, b) % 4
    return np.where(found == 3, -1, found).astype(object)


def is_ternary(key: Integers) -> bool:
    """Whether this is what a secret key looks like: -1, 0, 1, and each of them often."""
    return all(np.count_nonzero(key == value) > len(key) // 4 for value in (-1, 0, 1)) and bool(
        np.all((key >= -1) & (key <= 1)))


def multiply(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Product mod X^N + 1, exact while every |coefficient| of it stays far below 2^50."""
    size = len(a)
    whole = np.rint(np.fft.irfft(np.fft.rfft(a, 2 * size) * np.fft.rfft(b, 2 * size), 2 * size))
    return (whole[:size] - whole[size:]).astype(np.int64)


def coefficients(values: Integers, prime: int) -> Integers:
    """Values at the roots, in SEAL's order -> coefficients in (-q/2, q/2)."""
    size = len(values)
    root = _root(2 * size, prime)
    found = _transform(values[_reversed(size)], pow(root, -2, prime), prime)
    back = pow(size, -1, prime)
    centred = found * (_powers(pow(root, -1, prime), size, prime) * back % prime) % prime
    return np.where(centred > prime // 2, centred - prime, centred)


def _transform(values: Integers, root: int, prime: int) -> Integers:
    """Sum over k of values[k] root^(jk), for every j."""
    if len(values) == 1:
        return values
    half = root * root % prime
    even, odd = _transform(values[0::2], half, prime), _transform(values[1::2], half, prime)
    turned = odd * _powers(root, len(odd), prime) % prime
    return np.concatenate([even + turned, even - turned]) % prime


def _powers(base: int, count: int, prime: int) -> Integers:
    made = np.empty(count, object)
    value = 1
    for index in range(count):
        made[index] = value
        value = value * base % prime
    return made


def _root(order: int, prime: int) -> int:
    """The smallest primitive root of unity of this order, a power of two: SEAL's choice."""
    found = next(root for g in range(2, 1000)
                 if pow(root := pow(g, (prime - 1) // order, prime), order // 2, prime)
                 == prime - 1)
    return min(_powers(found * found % prime, order // 2, prime) * found % prime)


def _reversed(size: int) -> NDArray[np.int64]:
    bits = size.bit_length() - 1
    places = np.arange(size)
    return sum(((places >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))


def _conjugates(size: int) -> NDArray[np.int64]:
    """Place of the inverse root: psi^(2 j + 1) and psi^(2 N - 2 j - 1)."""
    order = _reversed(size)
    return order[size - 1 - order]


def _inverses(values: Integers, prime: int) -> Integers:
    return np.array([pow(int(value) % prime, -1, prime) for value in values], object)
