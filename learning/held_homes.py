"""One partner's homes, held so that some can be read without the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning.held_rows import HeldRows, RowWriter
from learning.load_features import HOURS, Home

_DAY = np.dtype((np.float32, (2, HOURS)))
"""Load, temperature."""


@dataclass(frozen=True)
class HeldHomes:
    """names: (n,) sorted; first_day: (n,) days since 1970-01-01; start: (n,) row of the first day
    of each in ``rows``, days: (n,) how many follow."""

    names: tuple[str, ...]
    first_day: NDArray[np.int64]
    start: NDArray[np.int64]
    days: NDArray[np.int64]
    rows: HeldRows

    @classmethod
    def of(cls, homes: Iterable[Home]) -> HeldHomes:
        """Each home once, in any order. Raises OSError where the disk is full."""
        writer, names, numbers = RowWriter(_DAY), [], []
        for home in homes:
            numbers.append((home.first_day, writer.rows, len(home)))
            names.append(home.name)
            writer.append(np.stack([home.load_kwh, home.temperature_c], axis=1))
        order = np.argsort(np.array(names, object), kind="stable")
        table = np.array(numbers, np.int64).reshape(-1, 3)[order]
        return cls(tuple(names[place] for place in order), *table.T, writer.done())

    def __len__(self) -> int:
        return len(self.names)

    def home(self, number: int) -> Home:
        start = int(self.start[number])
        rows = self.rows.read(start, start + int(self.days[number]))
        return Home(self.names[number], int(self.first_day[number]), rows[:, 0], rows[:, 1])
