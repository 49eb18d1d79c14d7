"""Work on the blocks of an update on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Made = TypeVar("_Made")
_FEWEST = 16
"""Blocks below which threads cost more than they bring."""


def each(work: Callable[[int], _Made], count: int) -> list[_Made]:
    """[work(0), ..., work(count - 1)], in threads where that pays.

    The threads live for this call only, so nothing of them is inherited over a fork. The first
    exception is raised once the running work has ended.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if count < _FEWEST or (cores or 1) < 2:
        return [work(index) for index in range(count)]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, range(count)))
