"""One federation's real sessions, whose site "east" can be set back and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.session import Session
from client.site import Site
from client.site_folder import LEDGERS
from conf.compose import to_json
from encryption.accumulator import digest, make_accumulator
from encryption.types import OpeningClaim, RoundId
from strategies.agreement import Agreement
from strategies.layout import OpenRequest

RUN = "ab" * 16


class Party:
    """Every partner's real session, each begun anew for each act; the state of "east" can be set
    back to what it was."""

    def __init__(self, federation, folder: Path) -> None:  # type: ignore[no-untyped-def]
        self.federation, self.state = federation, folder / "state" / "east"
        self._kept = folder / "kept"
        self.config = to_json(federation.config)

    def session(self, partner: str = "east") -> Session:
        return Session.start(self.config, Site.from_node_config(self.federation.nodes[partner]))

    def train(self, number: int, partner: str = "east", kind: str = "train"):  # type: ignore[no-untyped-def]
        return self.session(partner).contribute(self.federation.request(number, kind=kind))

    def sum(self, number: int) -> tuple[bytes, ...]:
        accumulator = make_accumulator(Agreement.of(self.federation.config).layout("train"))
        for partner in self.federation.config.federation.partners:
            accumulator.fold(self.train(number, partner).blocks)
        return accumulator.finish()

    def open(self, number: int, blocks: tuple[bytes, ...], members: tuple[int, ...] = (0, 1, 2)):  # type: ignore[no-untyped-def]
        claim = OpeningClaim(RoundId(RUN, number), members, digest(blocks))
        return self.session().open_sum(OpenRequest(
            claim, "train", self.federation.parameters.fingerprint, blocks,
            self.federation.start_digest))

    def keep(self) -> None:
        shutil.copytree(self.state, self._kept)

    @contextmanager
    def damaged(self, damage: Callable[[Path], object]) -> Iterator[None]:
        shutil.rmtree(self.state)
        shutil.copytree(self._kept, self.state)
        damage(self.state)
        yield

    @property
    def ledgers(self) -> list[bytes]:
        return [(self.state / name).read_bytes() for name in LEDGERS
                if (self.state / name).exists()]

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for content in self.ledgers for line in content.splitlines()]
