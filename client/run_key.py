"""The key that a run began with at this site.

Every process reads the key from its file anew. A file that somebody replaced in the middle of a
run would spoil the sum of a round, and an opening that fails its checks retires run and key for
good: so a site that finds another key than it began with says so, and sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.reply_store import folder_name
from encryption.types import Refused
from strategies.durable import write_whole


class KeyChanged(Refused):
    """The file at key-path holds another key than the run began with."""


@dataclass(frozen=True)
class RunKey:
    """A file per run below ``folder``, with the key's identifier, which is public."""

    folder: Path

    def check(self, run: str, key_id: str) -> None:
        """Raises KeyChanged."""
        path = self._path(run)
        if path.exists() and path.read_text() != key_id:
            raise KeyChanged("key-path holds another key than this run began with: put the file "
                             "back, and the run goes on")

    def pin(self, run: str, key_id: str) -> None:
        """On disk when this returns. Raises KeyChanged."""
        self.check(run, key_id)
        if not self._path(run).exists():
            write_whole(self._path(run), key_id.encode())

    def _path(self, run: str) -> Path:
        return self.folder / folder_name(run)
