"""How good predictions are: exactly, over resampled customers, and as a sum that may be noised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from learning.customers import Customers
from learning.exact import row_sums
from learning.results import Estimate

Vector = NDArray[np.floating]


class Metric(Protocol):
    """``name``: for example "auc"; runs record it as ``val/auc``. ``unit``: of the value, ""
    for a plain number. ``size``: numbers of one customer's statistics. ``clip``: public L2 bound
    on them; what is summed, noised and released keeps within it.

    Exact values compare scores (m, o) with targets (m, o) of m examples; ``customer`` (m,) says
    whose an example is, 0 to n - 1, each with at least one example.
    """

    name: str
    unit: str
    higher_is_better: bool
    size: int
    clip: float

    def exact(self, scores: Vector, targets: Vector, customer: NDArray[np.int64]) -> float:
        """NaN where it is not defined. Raises ValueError on scores that are not finite."""

    def bootstrap(self, ways: Sequence[Vector], targets: Vector, customer: NDArray[np.int64],
                  resamples: int, seed: int | list[int]) -> NDArray[np.float64]:
        """(s, resamples): each of s ways to score (m, o), over the same resampled customers."""

    def statistics(self, scores: Vector, customers: Customers) -> NDArray[np.float64]:
        """(n, e, o) scores -> (n, size), a row a customer that depends on it alone, to the bit,
        however it is padded. Scores need not be finite. Callers clip each row to ``clip``."""

    def released(self, total: Vector, noise_std: float = 0.0) -> float:
        """The metric from a sum of statistics (size,), possibly noised, with noise of
        ``noise_std`` in each number; any multiple of both gives the same. NaN where noise has
        left nothing to divide by."""


@dataclass(frozen=True)
class MeanAbsoluteError:
    """Mean over customers of each customer's mean absolute error.

    bound: public, in ``unit``: a customer's error counts at most this much in what is released.
    Its statistics are its error and bound / 2, which counts it: the sum's first part over its
    second is the metric, and no party has to know how many customers took part.
    """

    unit: str
    bound: float
    name: str = "mae"
    higher_is_better: bool = False
    size: int = 2

    @property
    def clip(self) -> float:
        return float(np.hypot(self.bound, self.bound / 2))

    def exact(self, scores: Vector, targets: Vector, customer: NDArray[np.int64]) -> float:
        errors = _per_customer(_errors(scores, targets), customer)
        return float(errors.mean()) if len(errors) else float("nan")

    def bootstrap(self, ways: Sequence[Vector], targets: Vector, customer: NDArray[np.int64],
                  resamples: int, seed: int | list[int]) -> NDArray[np.float64]:
        parts = np.stack([_per_customer(_errors(way, targets), customer) for way in ways])
        count = parts.shape[1]
        if count == 0:
            return np.full((len(parts), resamples), np.nan)
        return parts @ draw_customers(count, resamples, seed).T / count

    def statistics(self, scores: Vector, customers: Customers) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):
            each = np.abs(scores - customers.targets)
        sums = row_sums(each.reshape(-1, each.shape[-1])).reshape(each.shape[:2])
        errors = _worst_if_unknown(sums / each.shape[-1], self.bound)
        counts = customers.mask.sum(1)
        means = row_sums(np.where(customers.mask, errors, 0)) / np.maximum(counts, 1)
        known = counts > 0
        return np.stack([np.minimum(means, self.bound) * known, self.bound / 2 * known], axis=1)

    def released(self, total: Vector, noise_std: float = 0.0) -> float:
        return _ratio(float(total[0]), float(total[1])) * self.bound / 2


def interval(value: float, resampled: NDArray[np.float64]) -> Estimate:
    """``value`` with the central 95% of ``resampled`` (r,), ignoring those not defined."""
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Estimate(value)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def draw_customers(count: int, resamples: int, seed: int | list[int]) -> NDArray[np.int64]:
    """(resamples, count): how often each of ``count`` customers is drawn, with replacement."""
    chances = np.full(count, 1 / max(1, count))
    return np.random.default_rng(seed).multinomial(count, chances, size=resamples)


def _errors(scores: Vector, targets: Vector) -> NDArray[np.float64]:
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return np.abs(np.asarray(scores, np.float64) - targets)


def _per_customer(errors: Vector, customer: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m, o) -> (n,) mean of each customer."""
    size = int(customer.max(initial=-1)) + 1
    return (np.bincount(customer, errors.mean(-1), minlength=size)
            / np.maximum(np.bincount(customer, minlength=size), 1))


def _worst_if_unknown(errors: Vector, bound: float) -> Vector:
    """A prediction that is no number is as wrong as counts."""
    return np.nan_to_num(errors, nan=bound, posinf=bound)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")
