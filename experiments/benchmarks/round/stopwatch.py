"""Where the time of a round goes: processor seconds of named parts, without their inner parts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import client.session
import experiments.local_grid
import keyholder.sealer
import strategies.fedavg
from client.reply_store import ReplyStore
from client.session import Session
from keyholder.sealer import Sealer
from privacy.plan import PrivacyPlan
from strategies import layout
from strategies.fedavg import EncryptedFedAvg
from strategies.global_model import RevealedModel

PARTS: tuple[tuple[str, tuple[tuple[Any, str], ...]], ...] = (
    ("train and clip", ((client.session, "training_sums"),)),
    ("quantise, noise", ((PrivacyPlan, "quantise"),)),
    ("tags", ((keyholder.sealer, "tags"),)),
    ("encrypt", ((Sealer, "seal"),)),
    ("store reply, ledger", ((ReplyStore, "put"), (ReplyStore, "get"), (Session, "_spend"))),
    ("transport", (*((layout, name) for name in (
        "train_request", "parse_train_request", "train_reply", "parse_train_reply",
        "open_request", "parse_open_request", "open_reply", "parse_open_reply")),
        (experiments.local_grid, "_by_value"))),
    ("fold", ((EncryptedFedAvg, "_take"), (strategies.fedavg, "digest"))),
    ("open", ((Session, "open_sum"),)),
    ("step", ((PrivacyPlan, "dequantise"), (RevealedModel, "after"))),
)
"""Label -> the functions whose time it is."""


class Stopwatch:
    """``seconds``: label -> processor seconds so far, over all threads."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Counter[str]]:
        """Time all PARTS within the block, in every thread."""
        self.seconds = Counter()
        originals = [(owner, name, label, getattr(owner, name))
                     for label, places in PARTS for owner, name in places]
        patches = [patch.object(owner, name, self._timed(label, work))
                   for owner, name, label, work in originals]
        for one in patches:
            one.start()
        try:
            yield self.seconds
        finally:
            for one in patches:
                one.stop()

    def _timed(self, label: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(work)
        def timed(*arguments: Any, **named: Any) -> Any:
            outer = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds, began = 0.0, time.thread_time()
            try:
                return work(*arguments, **named)
            finally:
                spent = time.thread_time() - began
                with self._lock:
                    self.seconds[label] += spent - self._inner.seconds
                self._inner.seconds = outer + spent

        return timed
