"""Sums whose blocks several cores add, a part each; the same sums as those of a single one.

``shared_key`` is added in helper processes, because SEAL holds Python's lock; ``shared_key_rlwe``
in threads, because its work is numpy's on whole batches, which let go of it. A helper keeps the sum
of its part over a round, so that memory does not grow with the clients. If one is lost, so is the
round's sum: partners resend the very bytes that they sent, and it is added anew in one process.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encryption.accumulator import Checked, fresh_block_bytes, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.processes import READY, Desk, Helper, HelperLost, choose, desk
from encryption.types import Accumulator, Refused
from encryption.wire import check_count

log = logging.getLogger("veilsum")
_SECONDS_A_VALUE = {"shared_key": 2.5e-8, "shared_key_rlwe": 6e-9}
"""What a fold takes on one core, about (``experiments/benchmarks/encryption``)."""
_PATIENCE_S = 60.0
_CHECK, _ADD, _START, _FINISH = b"c", b"a", b"s", b"f"
_NUMBERS, _NONE = struct.Struct("<II"), 2**32 - 1
T = TypeVar("T")


class _Part(Protocol):
    """Some blocks of a sum. All but the constructor may raise HelperLost."""

    def check(self, blocks: Sequence[bytes], client: int | None) -> Checked: ...
    def add(self, update: Checked) -> None: ...
    def finish(self) -> tuple[bytes, ...]: ...


class SharedSum:
    """An accumulator of parts, each worked on by a thread of ``pool``: in this process, or waiting
    for a helper. Raises HelperLost where a helper is: the sum is lost, start a new one."""

    def __init__(self, cuts: Sequence[int], parts: Sequence[_Part], pool: ThreadPoolExecutor
                 ) -> None:
        self._slices = [slice(*pair) for pair in pairwise(cuts)]
        self._parts, self._pool, self._blocks = parts, pool, cuts[-1]
        self.count = 0

    def fold(self, blocks: Sequence[bytes], client: int | None = None) -> None:
        check_count(blocks, self._blocks)
        found = self._each(lambda part, at: part.check(blocks[at], client))
        if any((one.round, one.client) != (found[0].round, found[0].client) for one in found):
            raise Refused("the blocks of an update name different rounds or clients")
        checked = dict(zip(self._parts, found, strict=True))
        self._each(lambda part, _: part.add(checked[part]))
        self.count += 1

    def finish(self) -> tuple[bytes, ...]:
        if not self.count:
            raise ValueError("nothing was folded; wait for at least one update")
        return tuple(block for found in self._each(lambda part, _: part.finish())
                     for block in found)

    def _each(self, work: Callable[[_Part, slice], T]) -> list[T]:
        """Of every part, in order; all have ended before an error is raised, a loss first."""
        running: list[Future[T]] = [self._pool.submit(work, part, at)
                                    for part, at in zip(self._parts, self._slices, strict=True)]
        errors = [error for one in running if (error := one.exception())]
        for error in sorted(errors, key=lambda error: not isinstance(error, HelperLost)):
            raise error
        return [one.result() for one in running]


class Sums:
    """The sums of one layout in one run. ``processes``: how many share the work (None: as many as
    pay for ``updates`` folds)."""

    def __init__(self, layout: ControlLayout, processes: int | None = 1, updates: int = 1) -> None:
        self._layout, self._owner = layout, os.getpid()
        suite = layout.parameters.suite
        count = choose(processes, updates * layout.values * _SECONDS_A_VALUE.get(suite, 0.0))
        count = max(1, min(count, layout.blocks // 2)) if suite in _SECONDS_A_VALUE else 1
        self._cuts = [layout.blocks * i // count for i in range(count + 1)]
        self._helpers = self._start_helpers() if suite == "shared_key" else []
        parts = len(self._cuts) - 1
        self._pool = ThreadPoolExecutor(parts, "veilsum-fold") if parts > 1 else None

    def start(self, round_number: int) -> Accumulator:
        """An empty sum of one round; the one before it is done with."""
        pool, parts = self._pool, self._parts(round_number)
        if pool is None or len(parts) < 2 or os.getpid() != self._owner:
            return make_accumulator(self._layout, round_number)
        return SharedSum(self._cuts, parts, pool)

    @property
    def helpers(self) -> tuple[SummingHelper, ...]:
        return tuple(self._helpers)

    def close(self) -> None:
        """End the processes; later sums are made in this one."""
        for helper in self._helpers:
            helper.close()
        self._helpers, self._cuts = [], [0, self._layout.blocks]

    def _start_helpers(self) -> list[SummingHelper]:
        try:
            return [SummingHelper(self._layout, first, stop)
                    for first, stop in pairwise(self._cuts[:-1])]
        except (OSError, HelperLost) as error:
            log.warning("no more processes can share the sums (%s)", type(error).__name__)
            self._cuts = [0, self._layout.blocks]
            return []

    def _parts(self, number: int) -> list[_Part]:
        """Fewer than two where a helper is not there yet, or is lost."""
        try:
            if not all(helper.start(number) for helper in self._helpers):
                return []
        except HelperLost:
            self.close()
        here = list(pairwise(self._cuts))[len(self._helpers):]
        return [*self._helpers, *(make_accumulator(self._layout, number, slice(*part))
                                  for part in here)]


class SummingHelper:
    """The server's end of a process that adds the blocks first..stop-1. Raises HelperLost."""

    def __init__(self, layout: ControlLayout, first: int, stop: int) -> None:
        parameters = layout.parameters
        self._count, self._fresh = stop - first, fresh_block_bytes(parameters)
        self._helper = Helper("encryption.shared_sum", self._count * 2 * self._fresh)
        self._helper.send(json.dumps({
            "suite": parameters.suite, "max_clients": parameters.max_clients,
            "bits": parameters.bits, "values": layout.values, "partners": layout.partners,
            "first": first, "stop": stop}).encode())

    @property
    def pid(self) -> int:
        return self._helper.pid

    def ready(self, timeout_s: float = 0.0) -> bool:
        return self._helper.ready(timeout_s)

    def start(self, number: int) -> bool:
        """Begin a sum; False where the process has not started."""
        if not self._helper.ready():
            return False
        self._helper.send(_START + _NUMBERS.pack(number, 0))
        return True

    def check(self, blocks: Sequence[bytes], client: int | None) -> Checked:
        if any(not isinstance(block, bytes) or len(block) != self._fresh for block in blocks):
            raise Refused("a block of another size than its parameters give")
        for at, block in enumerate(blocks):
            _put(self._helper.shared, at * self._fresh, block)
        self._helper.send(_CHECK + _NUMBERS.pack(_NONE if client is None else client, 0))
        answer = self._helper.receive(_PATIENCE_S)
        if answer[:1] != _CHECK:
            raise Refused(answer[1:].decode())
        return Checked(*_NUMBERS.unpack(answer[1:]), ())

    def add(self, update: Checked) -> None:
        self._helper.send(_ADD)

    def finish(self) -> tuple[bytes, ...]:
        self._helper.send(_FINISH)
        size, _ = _NUMBERS.unpack(self._helper.receive(_PATIENCE_S))
        made = self._helper.shared.data
        return tuple(bytes(made[at : at + size]) for at in range(0, self._count * size, size))

    def close(self) -> None:
        self._helper.close()


def main() -> None:
    """The helper's end: the same accumulator, of its part."""
    ours = desk()
    messages = ours.messages()
    found = json.loads(next(messages))
    parameters = choose_parameters(found["suite"], found["max_clients"], found["bits"])
    layout = ControlLayout(found["values"], found["partners"], parameters)
    part = slice(found["first"], found["stop"])
    ours.pipe.send_bytes(READY)
    for message in messages:
        if message[:1] == _START:
            number, _ = _NUMBERS.unpack(message[1:])
            total = make_accumulator(layout, number, part)
        elif message[:1] == _CHECK:
            client, _ = _NUMBERS.unpack(message[1:])
            try:
                checked = total.check(_fresh(ours, layout, part), None if client == _NONE
                                      else client)
            except Refused as error:
                ours.pipe.send_bytes(b"n" + str(error).encode())
            else:
                ours.pipe.send_bytes(_CHECK + _NUMBERS.pack(checked.round, checked.client))
        elif message[:1] == _ADD:
            total.add(checked)
        elif message[:1] == _FINISH:
            blocks = total.finish()
            for at, block in enumerate(blocks):
                _put(ours.shared, at * len(block), block)
            ours.pipe.send_bytes(_NUMBERS.pack(len(blocks[0]), 0))


def _fresh(ours: Desk, layout: ControlLayout, part: slice) -> list[bytes]:
    size = fresh_block_bytes(layout.parameters)
    shared = ours.shared.data
    return [bytes(shared[at * size : (at + 1) * size]) for at in range(part.stop - part.start)]


def _put(shared: NDArray[np.uint8], at: int, block: bytes) -> None:
    shared[at : at + len(block)] = np.frombuffer(block, np.uint8)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"a summing process failed: {type(error).__name__}")
