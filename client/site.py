"""What a partner's own node configuration says: where its data, key and state are.

These paths never come from the server and never leave the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SiteError(RuntimeError):
    """The node configuration of this site is incomplete or points nowhere."""


@dataclass(frozen=True)
class Site:
    """``epsilon_limit``: this partner's own bound on what its ledger may ever spend; None only
    reports (a simulation)."""

    partner: str
    data_path: Path
    key_path: Path
    state_path: Path
    epsilon_limit: float | None = None

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, Any]) -> Site:
        """Read ``partner``, ``data-path``, ``key-path``, ``state-path`` and, optional,
        ``epsilon-limit``. Raises SiteError naming the key."""

        def text(key: str) -> str:
            value = node_config.get(key)
            if not isinstance(value, str) or not value:
                raise SiteError(f'node configuration lacks {key}: start the SuperNode with '
                                f"--node-config '... {key}=\"...\"'")
            return value

        limit = node_config.get("epsilon-limit")
        if limit is not None and (not isinstance(limit, int | float) or not limit > 0):
            raise SiteError("node configuration: epsilon-limit must be a number above 0")
        site = cls(text("partner"), Path(text("data-path")), Path(text("key-path")),
                   Path(text("state-path")), None if limit is None else float(limit))
        for key, path in (("data-path", site.data_path), ("key-path", site.key_path)):
            if not path.is_file():
                raise SiteError(f"node configuration: {key} is not a file: {path}")
        return site
