"""Where values and control values lie in the digits of an update. Public."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from encryption.parameters import ImpossibleParameters
from encryption.types import Parameters

TAGS = 3
TAG_BITS = 61


@dataclass(frozen=True)
class ControlLayout:
    """Digits of one update: ``[values | constant 1 | partner map | tag limbs | zeros]``.

    The tags cover everything before them. A limb holds ``parameters.bits`` bits of a tag, least
    significant first, tag after tag, minus 2^(bits-1) so that it is a signed digit. Raises
    ImpossibleParameters if there are no values, or more partners than the parameters can sum.
    """

    values: int
    partners: int
    parameters: Parameters

    def __post_init__(self) -> None:
        if self.values < 1:
            raise ImpossibleParameters("an update needs at least one value")
        if not 1 <= self.partners <= self.parameters.max_clients:
            raise ImpossibleParameters(
                f"{self.partners} partners do not fit parameters made for at most "
                f"{self.parameters.max_clients}; choose parameters for the whole federation")

    @property
    def constant(self) -> int:
        return self.values

    @property
    def partner_map(self) -> slice:
        return slice(self.values + 1, self.values + 1 + self.partners)

    @property
    def covered(self) -> int:
        """Digits that the tags cover."""
        return self.values + 1 + self.partners

    @property
    def limbs_per_tag(self) -> int:
        return -(-TAG_BITS // self.parameters.bits)

    @property
    def tags(self) -> slice:
        return slice(self.covered, self.covered + TAGS * self.limbs_per_tag)

    @cached_property
    def block_values(self) -> tuple[int, ...]:
        """Digits of each block, closing zeros included."""
        return self.parameters.block_values(self.tags.stop)

    @property
    def blocks(self) -> int:
        return len(self.block_values)

    @property
    def digits(self) -> int:
        """Digits of all blocks, closing zeros included."""
        return sum(self.block_values)
