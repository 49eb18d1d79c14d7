"""The sqlite file in which MLflow records: checked, and made whole or not at all.

MLflow needs seconds and dozens of steps to make its database. One that a kill or a second first run
interrupts stays half made for ever: every later run would train, and then fail to record. So it is
made under another name, by one process at a time, and takes its place when it is whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from conf.schema import InvalidConfig
from strategies.durable import sync_folder

_log = logging.getLogger(__name__)
_BUSY_S = 20.0
_HEAD = b"SQLite format 3\x00"
CURE = "use tracking.uri=sqlite:///mlflow.db or the address of an MLflow server"


def sqlite_file(uri: str) -> Path | None:
    """The database file of an ``sqlite:///`` address, else None."""
    match = re.match(r"^sqlite(?:\+\w+)?:///(?P<path>[^?]+)", uri)
    return Path(match["path"]) if match else None


def check_sqlite(uri: str, key: str) -> None:
    """Raises InvalidConfig for a file that cannot be MLflow's database, or be made one."""
    path = sqlite_file(uri)
    if path is None or path.name == ":memory:" or str(path).startswith("file:"):
        raise InvalidConfig(key, "an sqlite address names a file on the disk, or what was recorded "
                            f"would be gone at the end; {CURE}")
    folder = path.parent
    if not folder.is_dir():
        raise InvalidConfig(key, f"there is no folder {folder}; create it, or {CURE}")
    if path.is_dir():
        raise InvalidConfig(key, f"{path} is a folder; name a file in it")
    for needed in (folder, *([path] if path.exists() else [])):  # sqlite writes a journal beside it
        if not os.access(needed, os.W_OK):
            raise InvalidConfig(key, f"{needed} cannot be written; {CURE}")
    if path.exists():
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
        if head and head != _HEAD:
            raise InvalidConfig(key, f"{path} is another kind of file; {CURE}")
        if head:
            _is_whole(path, key)


def make_ready(uri: str, key: str) -> None:
    """MLflow's database is there when this returns. One that was left half made is moved aside,
    which the log says; it never held a run. Does nothing for addresses of other stores.

    Guarantee: whoever is killed at any point, the file at the database's name is whole, or what it
    was before. Raises InvalidConfig, and what MLflow raises.
    """
    path = sqlite_file(uri)
    if path is None:
        return
    with _alone(path.parent, key):
        if path.exists() and path.stat().st_size:
            if _is_whole(path, key):
                return
            aside = _free_name(path)
            path.rename(aside)
            _log.warning("%s was half made: a run ended while MLflow made it. It held no run and "
                         "is now %s; a new one takes its place", path, aside.name)
        _make(path.resolve())


def _is_whole(path: Path, key: str) -> bool:
    """MLflow puts in the first experiment when all else is done. Raises InvalidConfig for a file
    that is damaged, or another program's."""
    try:
        # Not read-only: what a kill interrupted is first taken back, which writes.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True,
                                     timeout=_BUSY_S)) as database:
            tables = {name for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "experiments" not in tables:
                raise InvalidConfig(key, f"{path} is the database of another program; {CURE}")
            return bool(tables) and database.execute(
                "SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.Error as error:
        raise InvalidConfig(key, f"{path} cannot be used ({error}). Move it away, and the same "
                            f"command makes a new one; or {CURE}") from None


def _make(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f".{path.name}.new")
    try:
        _remove(new)  # what a kill left
        store = SqlAlchemyStore(f"sqlite:///{new}", "./mlruns")
        store.engine.dispose()
        new.rename(path)
    finally:
        _remove(new)
    sync_folder(path.parent)


def _remove(database: Path) -> None:
    for name in (database.name, f"{database.name}-journal"):
        database.with_name(name).unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.half-made{number or ''}") for number in range(1000))
    return next(name for name in names if not name.exists())


@contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """One process at a time in ``folder``; the others wait. The kernel lets go of the lock when its
    process dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise InvalidConfig(key, f"{folder.resolve()} cannot be locked ({error.strerror}); "
                                "name a file on a disk of this machine") from None
        yield
    finally:
        os.close(descriptor)
