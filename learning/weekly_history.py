"""The weeks before a question as sequences, for models that read a history (task.InputShape).

A week counts back from the question's day: the last one ends the day before it. Every scale is a
public constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WEEK_DAYS = 7
CHANNELS = ("days with the category", "days with any purchase")
"""Of one week, for the tasks that ask whether a customer buys a category again. Both are counts
of days, which mean the same at every retailer."""


def weeks_of(history_days: int) -> int:
    """Weeks that hold ``history_days``; the oldest may be cut short."""
    return -(-history_days // WEEK_DAYS)


def weekly(row: NDArray[np.int64], age: NDArray[np.int64], rows: int,
           weeks: int) -> NDArray[np.float32]:
    """(rows, weeks) how many of the events of each row lie in each week, oldest first.

    row: (r,) whose an event is; age: (r,) days before the question, 1 is the day before.
    """
    week = weeks - 1 - (age - 1) // WEEK_DAYS
    counts = np.bincount(row * weeks + week, minlength=rows * weeks)
    return counts.reshape(rows, weeks).astype(np.float32)


def sequence(channels: Sequence[NDArray[np.float32]], bound: float) -> NDArray[np.float32]:
    """CHANNELS (..., weeks) each, of counts of days -> (..., weeks * channels), in
    [-bound, bound], about centred: most weeks have no day with a category, and a visit or two."""
    category, visits = np.broadcast_arrays(*channels)
    stacked = np.stack([category, 0.5 * visits - 0.5], axis=-1)
    return np.clip(stacked.reshape(*category.shape[:-1], 2 * category.shape[-1]), -bound, bound)
