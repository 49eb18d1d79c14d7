"""WAPE of totals: how far the demand of a group of customers, summed, is from the sum of the
predictions. One customer's week is mostly chance; what has to be in stock is a sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learning.exact import row_sums
from learning.metrics import Vector, draw_customers

if TYPE_CHECKING:
    from learning.customers import Customers


@dataclass(frozen=True)
class TotalsError:
    """Sum over periods and outputs of |sum of predictions - sum of targets|, over the sum of all
    targets; the inner sums are over the customers of the group that is judged (a partner, all).

    A customer's examples are the ``periods``, in order, and every customer has all of them. A
    larger group's totals are easier to predict: compare ways to predict, not groups.

    bound: public, in the unit of the targets. A customer's statistics are its errors, signed, and
    ``ACTUAL_SHARE`` of the sum of its targets; customers larger than the bound are scaled down.
    """

    periods: int
    outputs: int
    bound: float
    name: str = "wape"
    unit: str = ""
    higher_is_better: bool = False

    @property
    def size(self) -> int:
        return self.periods * self.outputs + 1

    @property
    def clip(self) -> float:
        return self.bound

    def exact(self, scores: Vector, targets: Vector, customer: NDArray[np.int64]) -> float:
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")
        errors, actual = self._errors(scores, targets, customer)
        return _ratio(np.abs(errors.sum(0)).sum(), actual.sum())

    def bootstrap(self, ways: Sequence[Vector], targets: Vector, customer: NDArray[np.int64],
                  resamples: int, seed: int | list[int]) -> NDArray[np.float64]:
        """Centred at the exact values: resampling adds chance to every total, and so makes the sum
        of their absolute errors larger on average than it is; that bias is taken off."""
        parts = [self._errors(way, targets, customer) for way in ways]
        count = len(parts[0][1])
        if not count:
            return np.full((len(ways), resamples), np.nan)
        draws = draw_customers(count, resamples, seed).astype(np.float64)
        rows = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for errors, actual in parts:
                ratios = np.abs(draws @ errors).sum(1) / (draws @ actual)
                exact = _ratio(np.abs(errors.sum(0)).sum(), actual.sum())
                rows.append(ratios - ratios[np.isfinite(ratios)].mean() + exact)
        return np.stack(rows)

    def statistics(self, scores: Vector, customers: Customers) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):
            errors = np.where(customers.mask[..., None], scores - customers.targets, 0)
        errors = np.clip(np.nan_to_num(errors, nan=self.bound), -self.bound, self.bound)
        whole = np.zeros((len(customers), self.periods * self.outputs))
        flat = errors.reshape(len(customers), math.prod(errors.shape[1:]))[:, :whole.shape[1]]
        whole[:, :flat.shape[1]] = flat
        known = np.where(customers.mask[..., None], customers.targets, 0)
        actual = row_sums(known.reshape(len(known), math.prod(known.shape[1:])))
        return np.concatenate([whole, ACTUAL_SHARE * actual[:, None]], axis=1)

    def released(self, total: Vector, noise_std: float = 0.0) -> float:
        """Noise makes absolute values too large on average; see :func:`_without_chance`."""
        errors = np.asarray(total[:-1], np.float64)
        chance = noise_std**2 * len(errors)
        return _ratio(_without_chance(errors, chance), float(total[-1]) / ACTUAL_SHARE)

    def _errors(self, scores: Vector, targets: Vector,
                customer: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, periods * outputs) signed, and (n,) the sum of the targets."""
        count = int(customer.max(initial=-1)) + 1
        errors = (np.asarray(scores, np.float64) - targets).reshape(count, self.size - 1)
        return errors, np.asarray(targets, np.float64).reshape(errors.shape).sum(1)


ACTUAL_SHARE = 0.25
"""Brings the sum of a customer's targets to the size of its errors."""


def _without_chance(totals: NDArray[np.float64], chance: float) -> float:
    """Sum of |totals| (k,), scaled by what remains of their mean square without ``chance``, the
    variance that noise adds to all of them together. Exact on average for totals
    that are normal and alike; NaN where chance is all there is."""
    squares = float((totals**2).sum())
    if squares <= chance:
        return 0.0 if squares == 0 else float("nan")
    return float(np.abs(totals).sum()) * float(np.sqrt(1 - chance / squares))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")
