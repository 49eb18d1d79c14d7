"""Who takes part: nodes that joined, and what became of each in a round."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from encryption.types import Refused
from strategies import layout
from strategies.exchange import ask, stream

log = logging.getLogger("veilsum")


class TooFewUpdates(RuntimeError):
    """A round, or the start, got fewer partners than the quorum."""

    def __init__(self, got: int, need: int, refused: Mapping[str, str] | None = None) -> None:
        reasons = "; ".join(f"{who}: {why}" for who, why in (refused or {}).items())
        super().__init__(
            f"{got} of at least {need} partners took part"
            + (f" ({reasons})" if reasons else "")
            + ". Their noise shares are missing, so nothing was opened; start the missing "
            "clients, or lower strategy.quorum (which raises every partner's noise)."
        )
        self.got, self.need = got, need


class KeysDiffer(RuntimeError):
    """Partners hold different keys, so their sums could never be opened."""


@dataclass(frozen=True)
class Cohort:
    """Joined nodes. ``nodes``: partner name -> Flower node id; ``partners``: all names of the
    federation in the order of the partner map."""

    partners: tuple[str, ...]
    nodes: Mapping[str, int]

    def index(self, partner: str) -> int:
        return self.partners.index(partner)


def join(
    grid: Grid, partners: tuple[str, ...], quorum: int, run: str, fingerprint: str, timeout_s: float
) -> Cohort:
    """Ask every connected node who it is, until all partners are there or time is up.

    Raises TooFewUpdates below the quorum and KeysDiffer when key identifiers disagree.
    """
    nodes: dict[str, int] = {}
    keys: dict[str, str] = {}
    refused: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    asked: set[int] = set()
    while len(nodes) < len(partners) and time.monotonic() < deadline:
        new = [node for node in grid.get_node_ids() if node not in asked]
        if not new:
            time.sleep(0.5)
            continue
        asked.update(new)
        content = {node: layout.join_request(run, fingerprint) for node in new}
        for node, reply in stream(grid, ask(content, layout.JOIN, "join"),
                                  deadline - time.monotonic()):
            try:
                answer = layout.parse_join_reply(reply)
                if answer.partner not in partners:
                    raise Refused("it names a partner that this federation does not have")
                if answer.partner in nodes:
                    raise Refused("another node already speaks for its partner")
            except Refused as error:
                refused[f"node {node}"] = str(error)
                log.warning("node %d was not let in: %s", node, error)
                continue
            nodes[answer.partner] = node
            keys[answer.partner] = answer.key_id
    if len(nodes) < quorum:
        raise TooFewUpdates(len(nodes), quorum, refused)
    if len(set(keys.values())) > 1:
        raise KeysDiffer("partners hold different keys: " + ", ".join(
            f"{name} {key}" for name, key in sorted(keys.items())) + ". Hand out one key again.")
    return Cohort(partners, nodes)
