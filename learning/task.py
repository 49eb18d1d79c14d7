"""What a task gives to the rest: one partner's customers as arrays, split by time and customer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Customers:
    """Examples of one partner, grouped by customer (the privacy unit) and padded.

    features: (n, e, f) float32, bounded by public constants; targets: (n, e) float32;
    mask: (n, e) bool, False where padded; naive: (n, e) float32, the naive baseline's score
    of the same examples. n may be 0.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    mask: NDArray[np.bool_]
    naive: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64]) -> Customers:
        return Customers(self.features[rows], self.targets[rows], self.mask[rows], self.naive[rows])


@dataclass(frozen=True)
class PartnerData:
    """Splits of one partner. train and validation hold the same customers at different times;
    test: those customers at the test snapshot; heldout: the test snapshot of customers that
    never took part in training (disjoint, so their release composes in parallel)."""

    train: Customers
    validation: Customers
    test: Customers
    heldout: Customers


class Task(Protocol):
    """A question that a federation learns to answer. Pure: reads files, holds no state."""

    name: str
    metric: str
    """Name of the metric of validation and test, for example "auc"; greater is better."""
    feature_names: tuple[str, ...]

    def split_by_partner(self, folder: Path) -> dict[str, Path]:
        """Write one file of events per partner into ``folder``: what each site would hold."""

    def load(self, path: Path) -> PartnerData:
        """Read one partner's file of events."""
