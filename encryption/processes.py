"""Helper processes, which share the work of one update among cores. This module knows no
secret; what is shared through it may be one.

Threads would not do: SEAL's bindings hold Python's lock. A helper is a fresh Python that runs one
of our modules (fork and exec at once, never a bare fork: the parent has Flower's and torch's
threads). It shares with its parent a socket and an anonymous memory file, which has no name that
could be left behind. It dies with its parent, in the midst of work if need be, and is killed when
the parent drops it: nothing that it holds is meant to last.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

START_UP_S = 0.5
"""Processor time that a helper takes to start: Python, numpy, SEAL (``two_cores`` measures it)."""
_MOST = 4
READY = b"ready"


class HelperLost(RuntimeError):
    """A helper died, or did not answer in time; do its part without it."""


def available() -> int:
    """Cores that this process may use, at most a few: parts get small, and memory is shared."""
    if not hasattr(os, "sched_getaffinity"):  # nor memory without a name: no Linux
        return 1
    return min(_MOST, len(os.sched_getaffinity(0)))


def choose(asked: int | None, work_s: float) -> int:
    """How many processes share ``work_s`` seconds of one core's work: as many as asked for, or
    those available if that saves more time than starting one costs. (Two processes save less than
    half of it.)"""
    if asked is not None:
        return asked if hasattr(os, "memfd_create") else 1
    return available() if work_s / 2 > START_UP_S else 1


class Helper:
    """The parent's end. One thread at a time, and only in the process that made it.

    ``shared``: (shared_bytes,) memory of both, zero at the start. Raises OSError where the system
    gives no process, socket or memory.
    """

    def __init__(self, module: str, shared_bytes: int) -> None:
        self._owner = os.getpid()
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            memory = os.memfd_create("veilsum")
            stack.callback(os.close, memory)
            os.ftruncate(memory, shared_bytes)
            self.shared = _mapped(memory, shared_bytes)
            self._pipe = Connection(ours.detach())
            ends = (theirs.fileno(), memory)
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", module, *map(str, (*ends, shared_bytes, self._owner))],
                pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        self._end = weakref.finalize(self, _end, self._process, self._pipe, self.shared,
                                     self._owner)
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether it has started, and this is its parent. Raises HelperLost."""
        if os.getpid() != self._owner:
            return False
        if not self._ready and self._poll(timeout_s):
            self._ready = self.receive(timeout_s) == READY
        return self._ready

    def send(self, message: bytes) -> None:
        """Raises HelperLost."""
        try:
            self._pipe.send_bytes(message)
        except OSError:
            raise HelperLost("a helper process ended") from None

    def receive(self, timeout_s: float) -> bytes:
        """Raises HelperLost."""
        if not self._poll(timeout_s):
            self.close()  # or it would answer the next question with this one's answer
            raise HelperLost("a helper process did not answer in time")
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise HelperLost("a helper process ended") from None

    def _poll(self, timeout_s: float) -> bool:
        try:
            return self._pipe.poll(timeout_s)
        except OSError:
            raise HelperLost("a helper process ended") from None

    def close(self) -> None:
        """Kill it and overwrite the shared memory. Twice is once."""
        self._end()


def _mapped(memory: int, size: int) -> NDArray[np.uint8]:
    """(size,) bytes of a memory file, left out of core dumps."""
    found = mmap.mmap(memory, size)
    if hasattr(mmap, "MADV_DONTDUMP"):
        found.madvise(mmap.MADV_DONTDUMP)
    return np.frombuffer(found, np.uint8)


def _end(process: subprocess.Popen[bytes], pipe: Connection, shared: NDArray[np.uint8],
         owner: int) -> None:
    if os.getpid() != owner:  # a forked child drops its copy; the helper is the parent's
        return
    process.kill()
    process.wait()
    pipe.close()
    shared[:] = 0


@dataclass(frozen=True)
class Desk:
    """The helper's own end: what its module's ``main`` works with."""

    pipe: Connection
    shared: NDArray[np.uint8]

    def messages(self) -> Iterator[bytes]:
        """What the parent sends, until it ends."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                yield self.pipe.recv_bytes()


def desk() -> Desk:
    """From this process's arguments, as :class:`Helper` gives them."""
    pipe, memory, size, parent = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    found = Desk(Connection(pipe), _mapped(memory, size))
    os.close(memory)
    return found


def _die_with(parent: int) -> None:
    """End this process when its parent has ended, also where a fork of the parent still holds the
    other end of the socket."""
    try:
        watched = os.pidfd_open(parent)
        if os.getppid() == parent:
            select.select([watched], [], [])
    except ProcessLookupError:
        pass
    except OSError:  # no such call here: the socket's end has to do
        return
    os._exit(0)
