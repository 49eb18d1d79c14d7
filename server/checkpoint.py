"""What the operator keeps on its disk, so that an interrupted run goes on where it stopped.

Below the operator's folder, one folder per configuration (:func:`conf.compose.agreed_digest`):
``round-N.checkpoint`` after each round and ``sum-N.folded`` before its sum is opened, the newest
two of both; ``opened-N.receipt`` once it is, all of them: a partner that comes late, or back, steps
the model along each. Each file: SHA-256 of the rest (32), length of the head (4, little-endian),
the head (JSON), the body. The body of a checkpoint is
:meth:`strategies.global_model.GlobalModel.packed`, that of a sum its blocks, that of a receipt
:meth:`strategies.receipts.Receipt.packed`; a sealed run has no receipts, and keeps
ciphertext and released metrics, nothing else. The digest finds damage; who may write to the folder
may begin the run anew, or take it back, as any operator may (SECURITY.md).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from conf.compose import agreed_digest, from_json, to_json
from conf.schema import Config, InvalidConfig
from encryption.types import Refused
from server.tracking_names import flat_params
from strategies.durable import write_whole
from strategies.fold import Folded, NoMemory, unbroken
from strategies.receipts import Receipt

log = logging.getLogger("veilsum")
_VERSION = 1
_KEEP = 2
_CHECK_BYTES = 32
_LENGTH = struct.Struct("<I")
Read = TypeVar("Read", "Saved", Folded, Receipt)


class CheckpointDamaged(InvalidConfig):
    """No checkpoint of an interrupted run can be read."""


@dataclass(frozen=True)
class Saved:
    """A run between two rounds. ``run``: its name, which partners have answered to; ``data``:
    digest of a simulation's table; ``released``: :meth:`server.released.ReleasedMetrics.state`;
    ``seconds``: spent so far."""

    run: str
    round: int
    data: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    released: Mapping[str, Any] = field(default_factory=dict)
    upload_bytes: float = 0.0
    seconds: float = 0.0
    model: bytes = b""


class CheckpointNotWritten(InvalidConfig):
    """The folder takes nothing more; the run ends before anything else is spent."""


class Checkpoints:
    """The memory of one run of ``config`` below ``folder``, a :class:`strategies.fold.Memory`.
    ``key``: where a person named the folder; ``instead``: what to do while another process has it;
    ``anew``: what to do to begin anew.
    Raises CheckpointNotWritten where nothing can be kept."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.key, self.instead = "federation.folder", "name another folder"
        if config.federation.name == "deployment":
            self.key, self.instead = "state-path", (
                "stop it; a run in another folder would spend privacy a second time")
        self._config = to_json(config)
        self.place = folder / agreed_digest(self._config).hex()[:16]
        self.anew = f"remove {self.place}"
        if config.federation.name == "deployment":
            self.anew += " and give begin-anew=true in the run config"
        self._run = ""

    @property
    def memory(self) -> str:
        """What MLflow knows these checkpoints by: digests of the configuration and of the folder's
        name, which itself is nobody's business."""
        return f"{self.place.name} {hashlib.sha256(bytes(self.place.resolve())).hexdigest()[:16]}"

    def load(self) -> Saved | None:
        """The newest that can be read; None where nothing was interrupted. Raises
        CheckpointDamaged where something was, and nothing of it can be read."""
        def of_run(head: dict[str, Any], body: bytes) -> Saved:
            if agreed_digest(head["config"]) != agreed_digest(self._config):
                raise ValueError("another configuration's")
            return Saved(**head["saved"], model=body)

        found = self._newest("*.checkpoint", of_run)
        if found is None and any(self.place.glob("*.checkpoint")):
            raise CheckpointDamaged(
                self.key, f"no checkpoint in {self.place} can be read: the run cannot "
                f"go on. To begin anew, which spends privacy again, {self.anew}")
        self._run = found.run if found else ""
        return found

    def save(self, saved: Saved) -> None:
        """On disk when this returns."""
        head = asdict(saved)
        model = head.pop("model")
        self._run = saved.run
        self._write(f"round-{saved.round:06d}.checkpoint",
                    {"config": self._config, "saved": head}, model)

    def keep(self, folded: Folded) -> None:
        head = asdict(folded)
        blocks = head.pop("blocks")
        self._write(f"sum-{folded.round:06d}.folded",
                    {"run": self._run, "folded": head, "lengths": [len(block) for block in blocks]},
                    b"".join(blocks))

    def folded(self, kind: str, number: int) -> Folded | None:
        def of_run(head: dict[str, Any], body: bytes) -> Folded | None:
            return _folded(head["folded"], head["lengths"], body) if (
                head["run"] == self._run and head["folded"]["kind"] == kind) else None

        return self._newest(f"sum-{number:06d}.folded", of_run)

    def keep_receipt(self, receipt: Receipt) -> None:
        self._write(_receipt_name(receipt.round), {"run": self._run}, receipt.packed(), most=None)

    def receipts(self, after: int, last: int) -> tuple[Receipt, ...]:
        return unbroken(map(self._receipt, range(last, after, -1)))

    def _receipt(self, number: int) -> Receipt | None:
        def of_run(head: dict[str, Any], body: bytes) -> Receipt | None:
            return Receipt.unpacked(body) if head["run"] == self._run else None

        return self._newest(_receipt_name(number), of_run)

    def finished(self) -> None:
        """The run ended: the same configuration begins a new one."""
        shutil.rmtree(self.place, ignore_errors=True)

    def others(self) -> list[str]:
        """Interrupted runs of other configurations beside this one: where, and the keys in which
        they differ."""
        here = flat_params(from_json(self._config))
        found = []
        for folder in sorted(self.place.parent.glob("*/")):
            if folder != self.place and (text := _config_in(folder)) is not None:
                try:
                    there = flat_params(from_json(text))
                except InvalidConfig:  # must not keep this run from beginning
                    found.append(f"{folder} (of another version)")
                    continue
                keys = [key for key in sorted({*here, *there}) if here.get(key) != there.get(key)]
                found.append(f"{folder} (differs in {', '.join(keys) or 'task.path'})")
        return found

    def _write(self, name: str, head: Mapping[str, Any], body: bytes,
               most: int | None = _KEEP) -> None:
        """most: files of this kind that stay, the newest; None: all."""
        text = json.dumps({"version": _VERSION, **head}).encode()
        content = _LENGTH.pack(len(text)) + text + body
        try:
            write_whole(self.place / name, hashlib.sha256(content).digest() + content)
        except OSError as error:
            raise self._not_written(error) from None
        kept = sorted(self.place.glob(f"*{Path(name).suffix}"))
        for old in kept[:-most] if most else []:
            old.unlink(missing_ok=True)

    def _not_written(self, error: OSError) -> CheckpointNotWritten:
        return CheckpointNotWritten(
            self.key, f"nothing can be kept in {self.place} ({error.strerror}): make room there "
            "and let this process write; the same command then goes on where the run stopped")

    def _newest(self, pattern: str,
                read: Callable[[dict[str, Any], bytes], Read | None]) -> Read | None:
        for path in sorted(self.place.glob(pattern), reverse=True):
            try:
                found = read(*_open(path))
                if found is not None and f"{found.round:06d}" != path.stem.partition("-")[2]:
                    raise ValueError("another round under this name")
                return found
            except (OSError, ValueError, KeyError, TypeError, struct.error, Refused):
                log.warning("%s cannot be read and is left out", path)
        return None


class NoCheckpoints(NoMemory):
    """Without a folder an interrupted run is lost."""

    place = memory = anew = ""

    def load(self) -> Saved | None:
        return None

    def save(self, saved: Saved) -> None:
        pass

    def finished(self) -> None:
        pass

    def others(self) -> list[str]:
        return []


@contextmanager
def checkpoints(folder: Path | None, config: Config) -> Iterator[Checkpoints | NoCheckpoints]:
    """Those of ``config`` below ``folder``. Raises CheckpointNotWritten, and InvalidConfig while
    another process has them."""
    if folder is None:
        yield NoCheckpoints()
        return
    kept = Checkpoints(folder, config)
    try:
        kept.place.mkdir(parents=True, exist_ok=True)
        lock = (kept.place / "lock").open("ab")
    except OSError as error:
        raise kept._not_written(error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidConfig(kept.key, "another process runs this very federation in "
                                f"{kept.place}; wait for it to end, or {kept.instead}") from None
        yield kept


def _open(path: Path) -> tuple[dict[str, Any], bytes]:
    """(head, body). Raises OSError, ValueError, struct.error."""
    stored = path.read_bytes()
    content = stored[_CHECK_BYTES:]
    if hashlib.sha256(content).digest() != stored[:_CHECK_BYTES]:
        raise ValueError("damaged")
    (length,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + length
    head = json.loads(content[_LENGTH.size : end])
    if head["version"] != _VERSION:
        raise ValueError("another version")
    return head, content[end:]


def _receipt_name(number: int) -> str:
    return f"opened-{number:06d}.receipt"


def _folded(head: dict[str, Any], lengths: list[int], body: bytes) -> Folded:
    blocks, at = [], 0
    for length in lengths:
        blocks.append(body[at : at + length])
        at += length
    return Folded(**{**head, "answered": tuple(head["answered"])}, blocks=tuple(blocks))


def _config_in(folder: Path) -> str | None:
    for path in sorted(folder.glob("*.checkpoint"), reverse=True):
        try:
            return str(_open(path)[0]["config"])
        except (OSError, ValueError, KeyError, struct.error):
            continue
    return None
