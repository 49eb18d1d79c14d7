"""Opening the one sum of a round: exact integers leave, after every check, or nothing does.

A refusal that depends on the key is a bit about it, so the first one retires run and key. One that
does not must not: whoever can make a request fail would cost the federation its key. What is
refused before the key is used, from public bytes and the site's own record alone:

- the claim: fewer partners than the minimum, none that the federation has, not in ascending order;
  this site's own part where it never gave one (``client.site_folder``);
- the blocks: their number, size, kind, suite, parameters, place and round, damage on the way,
  numbers that are no residues, a message in the clear (second polynomial zero: it decrypts to the
  same under every key), another digest than the claim's;
- another claim for the round, a retired run or key (``guard``).

What is refused after it: a value off the grid or out of range, another constant, map or closing
zero, tags that do not fit. Each of these reads what the key alone shows, so each retires. Nothing
cheaper could tell a spoiled sum from an honest one: without the key both are uniform. A server that
wants an end to the key can have it, as it could by sending nothing.

Whatever else fails once the key was used retires too, a lack of memory included: that it says
nothing about the key is a claim about libraries that nobody here has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encryption.accumulator import digest
from encryption.control import ControlLayout
from encryption.types import OpenedSum, OpeningClaim, RoundId
from keyholder.ciphers import make_cipher
from keyholder.guard import OpeningGuard
from keyholder.keys import SharedKey
from keyholder.refusals import (
    ConstantMismatch,
    DigestMismatch,
    DigitOutOfRange,
    PartnerMapMismatch,
    QuorumNotMet,
    TagMismatch,
)
from keyholder.tags import from_digits, tags


class SetRule(Protocol):
    """Which set of partners this opening's model admits (:mod:`client.opened_sets`)."""

    def check(self) -> None:
        """Raises AnotherSetOnThisModel."""

    def note(self) -> None:
        """This one is opened now: on the disk when this returns. Raises as :meth:`check`."""


class SumOpener:
    """The run's opener. ``minimum_partners``: the fewest whose sum it opens.

    Raises KeyFileError if the key was made for other parameters.
    """

    def __init__(self, key: SharedKey, layout: ControlLayout, guard: OpeningGuard,
                 minimum_partners: int) -> None:
        if not 1 <= minimum_partners <= layout.partners:
            raise ValueError(f"minimum_partners must lie in 1..{layout.partners}")
        self._key, self._layout, self._guard = key, layout, guard
        self._minimum = minimum_partners
        self._cipher = make_cipher(key, layout.parameters)

    def open(self, claim: OpeningClaim, blocks: Sequence[bytes],
             tagged: RoundId | None = None, rule: SetRule | None = None) -> OpenedSum:
        """The exact sums of the claimed partners' values. ``tagged``: what their tags must be
        bound to, if that is more than the claim's round (the model they trained from, say); the
        claim holds for the round, whatever the tags say. ``rule`` is asked before the claim.

        Asked again for the same claim it gives the stored answer. Raises Refused or
        OpeningRefused: before the key is used, for what is malformed, below the minimum or not
        what the round was claimed for; after, when a check of the decrypted sum fails. Such a
        failure retires run and key first, so an operator learns one bit of noise and no more.
        """
        self._check_claim(claim)
        parsed = self._cipher.parse(
            blocks, self._layout.block_values, claim.round_id.round)
        if digest(blocks) != claim.digest:
            raise DigestMismatch("the blocks are not those that the claim names")
        with self._guard.exclusive():
            if rule is not None:
                self._guard.check_claim(claim, self._key.key_id)
                rule.check()
            stored = self._guard.claim(claim, self._key.key_id)
            if rule is not None:
                rule.note()
            if stored is not None and stored.values.shape == (self._layout.values,):
                return stored
            try:
                opened = self._open(claim, parsed, tagged or claim.round_id)
            except Exception:  # whatever it is, it may depend on the key
                self._guard.retire(claim.round_id, self._key.key_id)
                raise
            self._guard.store(claim, opened)
            return opened

    def _check_claim(self, claim: OpeningClaim) -> None:
        members = claim.partners
        if len(members) < self._minimum:
            raise QuorumNotMet("fewer partners than the quorum")
        known = range(self._layout.partners)
        if any(a >= b for a, b in pairwise(members)) or not all(i in known for i in members):
            raise PartnerMapMismatch("the claim does not name partners in ascending order")

    def _open(self, claim: OpeningClaim, parsed: Sequence[Any], tagged: RoundId) -> OpenedSum:
        clients = len(claim.partners)
        sums = self._cipher.decrypt(parsed, self._layout.block_values, clients)
        self._check_partners(sums, claim.partners)
        self._check_ranges(sums, clients)
        self._check_tags(sums, clients, tagged)
        return OpenedSum(sums[: self._layout.values].copy(), claim.partners)

    def _check_partners(self, sums: NDArray[np.int64], members: tuple[int, ...]) -> None:
        if int(sums[self._layout.constant]) != len(members):
            raise ConstantMismatch("the sum holds another number of updates than claimed")
        expected = np.zeros(self._layout.partners, np.int64)
        expected[list(members)] = 1
        if not np.array_equal(sums[self._layout.partner_map], expected):
            raise PartnerMapMismatch("the sum does not hold each claimed partner once")

    def _check_ranges(self, sums: NDArray[np.int64], clients: int) -> None:
        half = 1 << (self._layout.parameters.bits - 1)
        if int(sums.min()) < -clients * half or int(sums.max()) > clients * (half - 1):
            raise DigitOutOfRange("a digit is out of range")
        if sums[self._layout.tags.stop :].any():
            raise DigitOutOfRange("a closing zero is not zero")

    def _check_tags(self, sums: NDArray[np.int64], clients: int, round_id: RoundId) -> None:
        covered = sums[: self._layout.covered]
        claimed = from_digits(sums[self._layout.tags], clients, self._layout)
        if tags(covered, self._key, round_id) != claimed:
            raise TagMismatch("the tags do not belong to this sum")
