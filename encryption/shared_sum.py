"""Sums whose blocks several processes add, a part each; the same sums as those of a single one.

A helper keeps the sum of its part over a round, so that memory does not grow with the clients. If
one is lost, so is the round's sum: partners resend the very bytes that they sent, and it is added
anew in one process. (Threads would lose nothing, but bring nothing either: SEAL holds Python's
lock, and with ``shared_key_rlwe`` two of them measured no faster than one.)
"""

from __future__ import annotations

import json
import logging
import os
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encryption.accumulator import Checked, Sum, fresh_block_bytes, make_accumulator
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.processes import READY, Desk, Helper, HelperLost, choose, desk
from encryption.rlwe import RING_DEGREE
from encryption.types import Accumulator, Refused
from encryption.wire import HEADER_BYTES, check_count

log = logging.getLogger("veilsum")
_SECONDS_A_VALUE = {"shared_key": 2.5e-8, "shared_key_rlwe": 6e-9}
"""What a fold takes on one core, about (``experiments/benchmarks/encryption``)."""
_PATIENCE_S = 60.0
_MOST_BYTES = HEADER_BYTES + 2 * 8 * RING_DEGREE
"""Of a summed block in any suite."""
_CHECK, _ADD, _START, _FINISH = b"c", b"a", b"s", b"f"
_NUMBERS, _NONE = struct.Struct("<II"), 2**32 - 1
T = TypeVar("T")
Work = Callable[[], T]


class _Part(Protocol):
    """Some blocks of a sum. A method begins something and returns what ends it; both may raise
    HelperLost, and what ends a check Refused."""

    def check(self, blocks: Sequence[bytes], client: int | None) -> Work[Checked]: ...
    def add(self, update: Checked) -> Work[None]: ...
    def finish(self) -> Work[tuple[bytes, ...]]: ...


class _Here:
    """A part that this process adds."""

    def __init__(self, total: Sum) -> None:
        self._total = total

    def check(self, blocks: Sequence[bytes], client: int | None) -> Work[Checked]:
        return partial(self._total.check, blocks, client)

    def add(self, update: Checked) -> Work[None]:
        return partial(self._total.add, update)

    def finish(self) -> Work[tuple[bytes, ...]]:
        return self._total.finish


class SharedSum:
    """An accumulator of parts: helpers' first, then this process's. Raises HelperLost where a
    helper is: the sum is lost, start a new one."""

    def __init__(self, cuts: Sequence[int], parts: Sequence[_Part]) -> None:
        self._parts, self._slices = parts, [slice(*pair) for pair in pairwise(cuts)]
        self._blocks, self.count = cuts[-1], 0

    def fold(self, blocks: Sequence[bytes], client: int | None = None) -> None:
        check_count(blocks, self._blocks)
        found = self._each([part.check(blocks[at], client)
                            for part, at in zip(self._parts, self._slices, strict=True)])
        if any((one.round, one.client) != (found[0].round, found[0].client) for one in found):
            raise Refused("the blocks of an update name different rounds or clients")
        self._each([part.add(one) for part, one in zip(self._parts, found, strict=True)])
        self.count += 1

    def finish(self) -> tuple[bytes, ...]:
        if not self.count:
            raise ValueError("nothing was folded; wait for at least one update")
        return tuple(chain(*self._each([part.finish() for part in self._parts])))

    def _each(self, begun: Sequence[Work[T]]) -> list[T]:
        """End what was begun, last parts first: helpers work meanwhile. All of it has ended before
        an error is raised, a loss first."""
        ended = [_outcome(work) for work in reversed(begun)][::-1]
        errors = [one for one in ended if isinstance(one, Exception)]
        for error in sorted(errors, key=lambda error: not isinstance(error, HelperLost)):
            raise error
        return ended


def _outcome(work: Work[T]) -> T | Exception:
    try:
        return work()
    except Exception as error:
        return error


class Sums:
    """The sums of one layout in one run. ``processes``: how many share the work (None: as many as
    pay for ``updates`` folds)."""

    def __init__(self, layout: ControlLayout, processes: int | None = 1, updates: int = 1) -> None:
        self._layout, self._owner = layout, os.getpid()
        suite = layout.parameters.suite
        count = choose(processes, updates * layout.values * _SECONDS_A_VALUE.get(suite, 0.0))
        count = max(1, min(count, layout.blocks // 2)) if suite in _SECONDS_A_VALUE else 1
        self._cuts = [layout.blocks * i // count for i in range(count + 1)]
        self._helpers = self._start_helpers()

    def start(self, round_number: int) -> Accumulator:
        """An empty sum of one round; the one before it is done with."""
        parts = self._parts(round_number) if os.getpid() == self._owner else []
        if len(parts) < 2:
            return make_accumulator(self._layout, round_number)
        return SharedSum(self._cuts, parts)

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
        here = slice(*self._cuts[-2:])
        return [*self._helpers, _Here(make_accumulator(self._layout, number, here))]


class SummingHelper:
    """The server's end of a process that adds the blocks first..stop-1. Raises HelperLost."""

    def __init__(self, layout: ControlLayout, first: int, stop: int) -> None:
        parameters = layout.parameters
        self._count, self._fresh = stop - first, fresh_block_bytes(parameters)
        self._helper = Helper("encryption.shared_sum", self._count * _MOST_BYTES)
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

    def check(self, blocks: Sequence[bytes], client: int | None) -> Work[Checked]:
        if any(not isinstance(block, bytes) or len(block) != self._fresh for block in blocks):
            return partial(_refuse, "a block of another size than its parameters give")
        for at, block in enumerate(blocks):
            _put(self._helper.shared, at * self._fresh, block)
        self._helper.send(_CHECK + _NUMBERS.pack(_NONE if client is None else client, 0))
        return self._checked

    def _checked(self) -> Checked:
        answer = self._helper.receive(_PATIENCE_S)
        if answer[:1] != _CHECK:
            _refuse(answer[1:].decode())
        return Checked(*_NUMBERS.unpack(answer[1:]), ())

    def add(self, update: Checked) -> Work[None]:
        self._helper.send(_ADD)
        return lambda: None

    def finish(self) -> Work[tuple[bytes, ...]]:
        self._helper.send(_FINISH)
        return self._finished

    def _finished(self) -> tuple[bytes, ...]:
        size, _ = _NUMBERS.unpack(self._helper.receive(_PATIENCE_S))
        made = self._helper.shared.data
        return tuple(bytes(made[at : at + size]) for at in range(0, self._count * size, size))

    def close(self) -> None:
        self._helper.close()


def _refuse(reason: str) -> NoReturn:
    raise Refused(reason)


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
