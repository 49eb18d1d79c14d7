"""A process that is asked to end (SIGTERM) ends as after Ctrl-C: what was measured is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. All that ends well after Ctrl-C ends well after it."""


@contextmanager
def obeying_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated in the main thread, once: what follows is ignored,
    so that the end is not cut short. Changes nothing in another thread, where nobody may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def on_sigterm(signum: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner:  # a forked child has nothing to write
            os._exit(EXIT_TERMINATED)
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise Terminated

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(stopped: KeyboardInterrupt) -> int:
    return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
