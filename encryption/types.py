"""Words that both sides of the encryption share. Public: nothing here is secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Refused(Exception):
    """Bytes or sums from another party that are not accepted. The message carries no data."""


@dataclass(frozen=True)
class RoundId:
    """What tags, claims and the replay guard are bound to."""

    run: str
    """Random hex identifier of the run."""
    round: int
    """1..rounds for training; rounds + 1 for the final test release."""


@dataclass(frozen=True)
class OpeningClaim:
    """The one sum that may be opened for a round."""

    round_id: RoundId
    partners: tuple[int, ...]
    """Indexes into the federation's partner list, ascending: the set S the server names."""
    digest: bytes
    """SHA-256 over the summed blocks."""


@dataclass(frozen=True)
class OpenedSum:
    """Exact integers that left the opener."""

    values: NDArray[np.int64]
    """(n,) sums of the partners' signed values."""
    partners: tuple[int, ...]
    """Who is in the sum, by the encrypted partner map."""


class Parameters(Protocol):
    """A checked choice of message layout and cipher; equal fingerprints mean compatible bytes."""

    @property
    def suite(self) -> str: ...
    @property
    def suite_code(self) -> int:
        """The suite's number on the wire."""
    @property
    def bits(self) -> int: ...
    @property
    def max_clients(self) -> int: ...
    @property
    def values_per_block(self) -> int: ...
    @property
    def bytes_per_value(self) -> float:
        """What one more digit adds to a client's message, headers and seeds apart."""

    def block_values(self, digits: int) -> tuple[int, ...]:
        """Digits that each block of an update holds, closing zeros included; at least ``digits``
        together. The same for its own sum."""

    @property
    def fingerprint(self) -> str: ...


class Accumulator(Protocol):
    """Running sum of the replies of one round; constant memory."""

    @property
    def count(self) -> int: ...

    def fold(self, blocks: Sequence[bytes], client: int | None = None) -> None:
        """Add the blocks of one client, its place in the federation's list (None: of whichever
        the blocks name). Raises Refused and changes nothing if any is malformed, of another
        round or client, or if the client is in the sum already."""

    def finish(self) -> tuple[bytes, ...]:
        """The summed blocks, to be sent to the opener."""
