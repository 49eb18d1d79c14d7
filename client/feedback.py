"""What rounding and range left over of a partner's updates: kept at its site, added to its next.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847). Guarantee: the sum of
what was sent is the sum of the updates but for what is kept, so rounding loses nothing, it only
comes later. It touches numbers that are differentially private already (``local_dp``) or that
nothing protects from those who see the model (``none``). A noise share protects the sum it is added
to and no second look at it, so ``noise_shares`` has no feedback.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.reply_store import ReplyStore
from encryption.types import RoundId
from privacy.regions import Region

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Feedback:
    """One run's left-over parts, by the round that left them. A round that is computed again,
    because the site stopped before it had stored its reply, starts from the one before."""

    store: ReplyStore
    region: Region

    def joined(self, round_id: RoundId, update: Vector) -> Vector:
        """``update`` (d,) and what the newest earlier round left over. Raises ReplyDamaged."""
        kept = self.store.newest_before(round_id)
        return update + np.frombuffer(kept[0], "<f8") if kept else update

    def keep(self, round_id: RoundId, joined: Vector, sent: NDArray[np.int64]) -> None:
        """On disk before the reply may be. ``sent``: the integers of ``joined``."""
        left = self.region.left_over(joined, sent)
        self.store.put(round_id, (left.astype("<f8").tobytes(),))
