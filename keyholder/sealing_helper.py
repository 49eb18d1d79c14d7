"""A process of its own that seals some blocks of every update of one client: both its ends.

It gets the key through memory that nobody else maps, copies it to where keys are kept and wipes
what it read. Then, a job at a time: the digits come in the same memory, as 32-bit words; it answers
what they add to the tags, and once the blocks lie behind the digits, that they do. Its seeds and
errors are its own, from the operating system's randomness, so that blocks which are sealed anew
after it is lost have nothing in common with its.
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encryption.accumulator import fresh_block_bytes
from encryption.control import ControlLayout
from encryption.parameters import choose_parameters
from encryption.processes import READY, Desk, Helper, desk
from encryption.types import RoundId
from encryption.wire import Part
from keyholder.ciphers import make_cipher
from keyholder.keys import SharedKey
from keyholder.tags import tags

_TAGS, _NUMBER, _DONE = struct.Struct("<3Q"), struct.Struct("<I"), b"done"
_PATIENCE_S = 30.0
"""How long a helper may still take once this process has done as much itself."""


@dataclass(frozen=True)
class Task:
    """``part``: full blocks, ``blocks`` of them, that partner number ``partner`` has sealed for it;
    the closing ones, with the control values, are never among them."""

    layout: ControlLayout
    partner: int
    part: Part
    blocks: int

    @property
    def digits(self) -> slice:
        """Of the update's digits."""
        size = self.layout.parameters.values_per_block
        return slice(self.part.first * size, (self.part.first + self.blocks) * size)

    @property
    def digit_bytes(self) -> int:
        return 4 * self.blocks * self.layout.parameters.values_per_block

    @property
    def block_bytes(self) -> int:
        return fresh_block_bytes(self.layout.parameters)

    def dump(self) -> bytes:
        parameters = self.layout.parameters
        return json.dumps({
            "suite": parameters.suite, "max_clients": parameters.max_clients,
            "bits": parameters.bits, "values": self.layout.values,
            "partners": self.layout.partners, "partner": self.partner, "first": self.part.first,
            "blocks": self.blocks}).encode()

    @classmethod
    def load(cls, message: bytes) -> Task:
        found = json.loads(message)
        parameters = choose_parameters(found["suite"], found["max_clients"], found["bits"])
        layout = ControlLayout(found["values"], found["partners"], parameters)
        return cls(layout, found["partner"], Part(found["first"], layout.blocks), found["blocks"])


class SealingHelper:
    """The client's end. Every method raises HelperLost, but the constructor OSError."""

    def __init__(self, key: SharedKey, task: Task) -> None:
        self.task, frame = task, np.frombuffer(key.frame(), np.uint8)
        blocks = task.blocks * task.block_bytes
        self._helper = Helper("keyholder.sealing_helper",
                              max(len(frame), task.digit_bytes + blocks))
        self._helper.shared[: len(frame)] = frame
        self._helper.send(task.dump())
        self._helper.send(_NUMBER.pack(len(frame)))
        self._digits = self._helper.shared[: task.digit_bytes].view("<i4")

    @property
    def pid(self) -> int:
        return self._helper.pid

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether it has started. It is no use in a forked child."""
        return self._helper.ready(timeout_s)

    def begin(self, digits: NDArray[np.int64], round_id: RoundId) -> None:
        """Start on the task's digits."""
        self._digits[:] = digits
        self._helper.send(_NUMBER.pack(round_id.round) + round_id.run.encode())

    def tags(self) -> tuple[int, ...]:
        """What the digits add to the update's tags."""
        return _TAGS.unpack(self._helper.receive(_PATIENCE_S))

    def blocks(self) -> tuple[bytes, ...]:
        self._helper.receive(_PATIENCE_S)
        self._digits[:] = 0
        size, made = self.task.block_bytes, self._helper.shared[self.task.digit_bytes :].data
        return tuple(bytes(made[at : at + size])
                     for at in range(0, self.task.blocks * size, size))

    def close(self) -> None:
        """End the process and overwrite what it shared."""
        self._helper.close()


def main() -> None:
    """The helper's end."""
    ours = desk()
    messages = ours.messages()
    task = Task.load(next(messages))
    (size,) = _NUMBER.unpack(next(messages))
    key = SharedKey(ours.shared[:size].data)
    ours.shared[:size] = 0
    cipher = make_cipher(key, task.layout.parameters)
    ours.pipe.send_bytes(READY)
    for message in messages:
        (number,) = _NUMBER.unpack_from(message)
        digits = ours.shared[: task.digit_bytes].view("<i4").astype(np.int64)
        named = RoundId(message[_NUMBER.size :].decode(), number)
        ours.pipe.send_bytes(_TAGS.pack(*tags(digits, key, named, task.digits.start)))
        _put(ours, task, cipher.encrypt(digits, number, task.partner, task.part))
        ours.pipe.send_bytes(_DONE)


def _put(ours: Desk, task: Task, blocks: tuple[bytes, ...]) -> None:
    for at, block in enumerate(blocks):
        first = task.digit_bytes + at * task.block_bytes
        ours.shared[first : first + len(block)] = np.frombuffer(block, np.uint8)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"a sealing process failed: {type(error).__name__}")  # nothing of what it holds
