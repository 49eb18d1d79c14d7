"""Predicted distance of an opened CKKS sum from the integer grid, with its derivation.

Notation: ring degree N, K summed clients, scale D (one grid step is D in the units of the
encoded polynomial), q the modulus. A slot is the value of a polynomial at a primitive 2N-th root
of unity, z = sum_i c_i w^i; a *real* is its real or imaginary part.

1. *Encryption noise.* SEAL draws each coefficient of a fresh symmetric error from the centred
   binomial distribution with 42 coins (Microsoft SEAL 4, ``sample_poly_cbd``): variance 10.5, and
   sub-Gaussian with that same variance, being a sum of 42 independent signs of size 1/2. A real of
   the error is sum_i e_i cos(t_i) with sum_i cos(t_i)^2 = N/2, so its variance is 10.5 N / 2, and
   K clients add independently: **K * 10.5 * N / 2**.
2. *Encoding error, coherent.* The encoder rounds each coefficient to an integer: at most 1/2 off,
   variance 1/12, which gives N/24 in a real. Clients with identical plaintexts make the very same
   error, so it may add up like K, not like sqrt(K): **K^2 * N / 24**.
3. *Doubles.* Encoder and decoder compute an FFT of log2 N stages in doubles (unit roundoff
   u = 2^-53). Stage errors are independent relative errors of about u (N. J. Higham, Accuracy and
   Stability of Numerical Algorithms, ch. 24, the statistical form), so their rms relative to the
   rms slot is at most about u sqrt(log2 N) for each of the two transforms. The sum of the clients'
   encoding errors is bounded by the same expression at the full magnitude of the sum. With
   |slot| <= sqrt(2) A D: **2 (u sqrt(2) A D)^2 log2 N**, A the largest magnitude of a real.

All three are sub-Gaussian with the sum V of those variances, so
P(|deviation| >= t sqrt(V)) <= 2 exp(-t^2 / 2) (Chernoff), and over the 2^32 reals that a run may
open the union bound keeps the failure at or below 2^-40 when t = sqrt(2 ln(2 * 2^32 * 2^40)).
The same t is the bound that an opener holds every slot against.
"""

from __future__ import annotations

import math

LOG2_RUN_REALS = 32
"""Reals a run may open: 1.7 million parameters, two digits a real, for 5,000 rounds."""
LOG2_FAILURE = -40
ERROR_VARIANCE = 10.5
_UNIT_ROUNDOFF = 2.0**-53


def tail_factor() -> float:
    """Standard deviations that all reals of a run stay within, but for 2^-40. About 10.06."""
    return math.sqrt(2 * (1 + LOG2_RUN_REALS - LOG2_FAILURE) * math.log(2))


def predicted_deviation(*, ring_degree: int, scale: int, clients: int, magnitude: int) -> float:
    """Standard deviation of one real from the grid, in grid steps, for a sum over ``clients``.

    ``magnitude``: largest absolute value of a real of the sum, in grid steps.
    """
    noise = clients * ERROR_VARIANCE * ring_degree / 2
    encoding = clients**2 * ring_degree / 24
    doubles = 2 * (_UNIT_ROUNDOFF * math.sqrt(2) * magnitude) ** 2 * math.log2(ring_degree)
    return math.sqrt((noise + encoding) / scale**2 + doubles)


def grid_bound(*, ring_degree: int, scale: int, clients: int, magnitude: int) -> float:
    """Distance from the grid, in grid steps, that no honest real of a run exceeds (2^-40)."""
    return tail_factor() * predicted_deviation(
        ring_degree=ring_degree, scale=scale, clients=clients, magnitude=magnitude)
