"""What a partner's own node configuration says: where its data, key, state and policy are.

These paths never come from the server and never leave the site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client import policy_file
from client.policy import SitePolicy


class SiteError(RuntimeError):
    """The node configuration of this site is incomplete or points nowhere."""


@dataclass(frozen=True)
class Site:
    """``epsilon_limit``: this partner's own bound on what its ledger may ever spend, whatever
    the server asks for; None, written "unlimited", only records (a simulation). ``delta``: at which
    it is counted; a run's own could make any spending look small."""

    partner: str
    data_path: Path
    key_path: Path
    state_path: Path
    epsilon_limit: float | None
    delta: float = 1e-5
    processes: int | None = None
    """How many share the encryption of an update on this machine; None: as many as pay."""
    policy: SitePolicy | None = None
    """What it agrees to. None only in a simulation, whose configuration is its own."""

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, Any]) -> Site:
        """Read ``partner``, ``data-path``, ``key-path``, ``state-path``, ``epsilon-limit`` and, if
        given, ``delta``, ``processes`` and ``policy-path`` (else policy.toml in the state folder);
        and the policy itself. Raises SiteError naming the key."""

        def text(key: str) -> str:
            value = node_config.get(key)
            if not isinstance(value, str) or not value:
                raise SiteError(f'node configuration lacks {key}: start the SuperNode with '
                                f"--node-config '... {key}=\"...\"'")
            return value

        site = cls(text("partner"), Path(text("data-path")), Path(text("key-path")),
                   Path(text("state-path")), _limit(node_config.get("epsilon-limit")),
                   _delta(node_config.get("delta", cls.delta)),
                   _processes(node_config.get("processes")))
        for key, path in (("data-path", site.data_path), ("key-path", site.key_path)):
            if not path.is_file():
                raise SiteError(f"node configuration: {key} is not a file: {path}")
        if not site.state_path.is_dir():
            raise SiteError("node configuration: state-path is not a folder: "
                            f"{site.state_path}. Make it once, on a disk that stays: it holds the "
                            "record of what this partner's customers' privacy was spent on, which "
                            "in a new folder begins at nothing")
        named = node_config.get("policy-path")
        return replace(site, policy=_policy(site, None if named is None else text("policy-path")))


def _policy(site: Site, named: str | None) -> SitePolicy | None:
    """None where a simulation has none. Raises SiteError."""
    path = site.state_path / policy_file.NAME if named is None else Path(named)
    if named is None and site.epsilon_limit is None and not path.exists():
        return None
    if not path.is_file():
        raise SiteError(
            f"this site has no policy: {path} is not a file. It says with whom, on what and at "
            "which price this partner computes, whatever the operator's server asks for. Begin "
            "with `veilsum policy write FILE north=600 south=400`, or with these lines, for every "
            "partner about how many customers it trains on:\n[partners]\nnorth = 600\n"
            "south = 400\nElsewhere than there, name it as policy-path in the node configuration")
    try:
        policy = policy_file.read(path)
    except policy_file.PolicyError as error:
        raise SiteError(str(error)) from None
    if site.partner not in policy.partners:
        raise SiteError(f"{path}: [partners] lacks {site.partner!r}, the partner of the node "
                        "configuration; add its line")
    return policy


def told_seconds(duration_s: float, site: Site) -> float:
    """A duration as a server may know it: exact in a simulation; else rounded up to a power of two
    of seconds, 1 at least.

    How long training takes may depend on the data, and a server that picks the models could ask for
    that again and again. It sees when a reply arrives anyway, through the network and with all else
    that the site does; this tells less: for a round below a second nothing, and at most one of a
    dozen values for one of an hour. That the site is a simulation is its own word, never the run's.
    """
    if site.epsilon_limit is None or duration_s == 0:
        return duration_s
    return float(2 ** max(0, math.ceil(math.log2(duration_s))))


def _limit(value: object) -> float | None:
    """The server names the privacy of a run; without a bound of its own a site would follow."""
    if value == "unlimited":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SiteError('node configuration: epsilon-limit must be a number above 0, the most that '
                        'this partner lets its customers\' privacy cost over all runs (or '
                        '"unlimited", for simulations)')
    return float(value)


def _delta(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e-2:
        raise SiteError("node configuration: delta must lie between 0 and 0.01 (well below "
                        "1/customers): the δ at which epsilon-limit is counted; without it, 1e-5")
    return float(value)


def _processes(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)
                              or not 1 <= value <= 64):
        raise SiteError("node configuration: processes must be a whole number from 1 to 64, how "
                        "many share the encryption of an update; leave it out to use as many as "
                        "pay")
    return value
