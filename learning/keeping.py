"""How much of what could be made again a process keeps in memory."""

from __future__ import annotations

import threading
import weakref

KEPT_BYTES = 2**30


class Budget:
    """Bytes that may be kept, shared by all partners of a process: first come, first served,
    because what goes through parts in turn would find none of those that it used last."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def keep(self, owner: object, size: int) -> bool:
        """Whether ``size`` bytes more may be kept; they are free again when ``owner`` is gone."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
        weakref.finalize(owner, self._free, size)
        return True

    def _free(self, size: int) -> None:
        with self._lock:
            self._left += size


KEPT = Budget(KEPT_BYTES)
