"""One partner's update to blocks that only key holders can read."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encryption.control import ControlLayout
from encryption.processes import HelperLost, choose
from encryption.types import RoundId
from encryption.wire import Part
from keyholder.ciphers import make_cipher
from keyholder.keys import SharedKey
from keyholder.sealing_helper import SealingHelper, Task
from keyholder.tags import add, tags, to_digits

log = logging.getLogger("veilsum")
T = TypeVar("T")
_SECONDS_A_VALUE = {"shared_key": 1e-7, "shared_key_rlwe": 2e-8}
"""What sealing takes on one core, about (``experiments/benchmarks/encryption``)."""
_FEWEST_LEFT = 2
"""Closing blocks that stay here: the control values lie in them."""


class Sealer:
    """Seals updates of one layout as one partner.

    ``partner_index``: the partner's place in the federation's list. ``processes``: how many share
    the work of an update, this one included (None: as many as pay). The others start up meanwhile,
    are used once they have, and end with this object. What is sealed does not depend on them, and
    if they fail it is sealed here. Raises KeyFileError if the key was made for other parameters.
    """

    def __init__(self, key: SharedKey, layout: ControlLayout, partner_index: int,
                 processes: int | None = 1) -> None:
        if not 0 <= partner_index < layout.partners:
            raise ValueError(f"partner_index must lie in 0..{layout.partners - 1}")
        self._key, self._layout, self._partner = key, layout, partner_index
        self._cipher = make_cipher(key, layout.parameters)
        self._helpers = _start(key, layout, partner_index, processes)
        self._one_at_a_time = threading.Lock()

    @property
    def helpers(self) -> tuple[SealingHelper, ...]:
        """Those that are not lost."""
        return tuple(self._helpers)

    def seal(self, values: NDArray[np.int64], round_id: RoundId) -> tuple[bytes, ...]:
        """(values,) integers in [-2^(bits-1), 2^(bits-1) - 1] -> blocks of wire bytes.

        Fresh randomness on every call: seal once a round, and resend the same bytes. Raises
        ValueError, without data, for another type, shape or range.
        """
        layout = self._layout
        if values.dtype != np.int64 or values.shape != (layout.values,):
            raise ValueError(f"the update must be {layout.values} values of type int64")
        half = 1 << (layout.parameters.bits - 1)
        if int(values.min()) < -half or int(values.max()) >= half:
            raise ValueError(f"a value does not fit {layout.parameters.bits} signed bits")
        if not self._helpers or not self._one_at_a_time.acquire(blocking=False):
            return self._seal(values, round_id, ())
        lent, whole = self.helpers, False
        try:
            blocks = self._seal(values, round_id, lent)
            whole = self.helpers == lent
            return blocks
        finally:
            # With a job half done they would answer the next one wrong; without one of them, its
            # part of the next update would be nobody's.
            if not whole:
                for helper in self.helpers:
                    self._drop(helper)
            self._one_at_a_time.release()

    def _seal(self, values: NDArray[np.int64], round_id: RoundId,
              helpers: Sequence[SealingHelper]) -> tuple[bytes, ...]:
        lent = [_Lent(self, helper, values[helper.task.digits], round_id) for helper in helpers]
        first = helpers[-1].task.digits.stop if helpers else 0
        digits = self._closing_digits(values, first)
        found = self._tags(digits[: self._layout.covered - first], round_id, first)
        place = self._layout.tags
        digits[place.start - first : place.stop - first] = to_digits(
            add(found, *(piece.tags() for piece in lent)), self._layout)
        blocks = self._encrypt(digits, round_id, first)
        return (*chain.from_iterable(piece.blocks() for piece in lent), *blocks)

    def _closing_digits(self, values: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        """The update's digits from number ``first`` on, without the tags."""
        layout = self._layout
        digits = np.zeros(layout.digits - first, np.int64)
        digits[: layout.values - first] = values[first:]
        digits[layout.constant - first] = 1
        digits[layout.partner_map.start - first + self._partner] = 1
        return digits

    def _tags(self, digits: NDArray[np.int64], round_id: RoundId, first: int) -> tuple[int, ...]:
        return tags(digits, self._key, round_id, first)

    def _encrypt(self, digits: NDArray[np.int64], round_id: RoundId, first: int
                 ) -> tuple[bytes, ...]:
        """The blocks of the digits from number ``first``, where a block begins, on."""
        layout = self._layout
        part = Part(first // layout.parameters.values_per_block, layout.blocks)
        return self._cipher.encrypt(digits, round_id.round, self._partner, part)

    def _drop(self, helper: SealingHelper) -> None:
        helper.close()
        self._helpers.remove(helper)


class _Lent:
    """Blocks that a helper seals; if it is not there yet, or is lost, they are sealed here."""

    def __init__(self, sealer: Sealer, helper: SealingHelper, digits: NDArray[np.int64],
                 round_id: RoundId) -> None:
        self._sealer, self._helper = sealer, helper
        self._digits, self._round_id = digits, round_id
        self._lent = bool(self._ask(self._begin))

    def tags(self) -> tuple[int, ...]:
        found = self._ask(self._helper.tags) if self._lent else None
        return found or self._sealer._tags(self._digits, self._round_id, self._first)

    def blocks(self) -> tuple[bytes, ...]:
        found = self._ask(self._helper.blocks) if self._lent else None
        return found or self._sealer._encrypt(self._digits, self._round_id, self._first)

    @property
    def _first(self) -> int:
        return self._helper.task.digits.start

    def _begin(self) -> bool:
        if not self._helper.ready():
            return False
        self._helper.begin(self._digits, self._round_id)
        return True

    def _ask(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except HelperLost as error:
            log.warning("%s; its part of the update is sealed by this one", error)
            self._lent = False
            self._sealer._drop(self._helper)
            return None


def _start(key: SharedKey, layout: ControlLayout, partner: int, processes: int | None
           ) -> list[SealingHelper]:
    """A helper for each process but this one, which keeps the closing blocks."""
    if layout.parameters.suite not in _SECONDS_A_VALUE:
        return []
    count = choose(processes, layout.values * _SECONDS_A_VALUE[layout.parameters.suite])
    cuts = [layout.blocks * i // count for i in range(count)]
    helpers = []
    try:
        for first, stop in pairwise(cuts):
            if stop > first and layout.blocks - stop >= _FEWEST_LEFT:
                task = Task(layout, partner, Part(first, layout.blocks), stop - first)
                helpers.append(SealingHelper(key, task))
    except (OSError, HelperLost) as error:
        log.warning("no more processes can share the sealing (%s)", type(error).__name__)
    return helpers
