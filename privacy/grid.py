"""Choose a region's integer grid: step, clamp and noise share within a bit width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from scipy.special import ndtri_exp

from conf.schema import MOST_BITS
from privacy.rounding import SquaredShift, squared_shift

MIN_SHARE_STD_STEPS = 4.0
"""Below it a sum of discrete Gaussians is not close enough to one (tau in ``plan``)."""
MIN_TOTAL_STD_STEPS = 64.0
"""Below it the discrete Gaussian's delta may pass the continuous one's by more than delta / 2000
(``plan``)."""
_SHARE_STD_STEPS = (8192.0, 65536.0)
"""Finer grids cost memory for the sampling table: the second bound only where the first has no
grid (large models)."""
TARGET_INFLATION = 1.02
MAX_INFLATION = 1.05


class PlanImpossible(ValueError):
    """No plan with these public inputs exists: ``why``, and what may help. ``key`` is the override
    to change; enough_bits: the width that this region would fit, None if another width does not
    help."""

    def __init__(self, key: str, why: str, cure: str, enough_bits: int | None = None) -> None:
        super().__init__(f"{why}: {cure}")
        self.key, self.why, self.cure, self.enough_bits = key, why, cure, enough_bits


Made = TypeVar("Made")


def narrowest(least: int, most: int, make: Callable[[int], Made],
              whole: Callable[[Made], bool]) -> Made:
    """What can be made at ``least`` bits, if it can; else at the fewest, up to ``most``, at which
    it is ``whole``; else at the fewest at which it can be made at all. ``make`` raises
    PlanImpossible where it cannot; raises that of the last width tried."""
    bits, first = least, None
    while bits <= most:
        try:
            made = make(bits)
        except PlanImpossible as refusal:
            if refusal.enough_bits is None or refusal.enough_bits > most:
                raise
            bits = refusal.enough_bits
            continue
        if bits == least or whole(made):
            return made
        first = first or made
        bits += 1
    assert first is not None
    return first


@dataclass(frozen=True)
class Need:
    """What a region asks of its grid. Units are those of the sums unless named steps.

    size: coordinates; clip_norm: L2 bound of one customer; noise_multiplier: std of the noise
    that protects (all of it) over the sensitivity after rounding; shares: that noise is the
    sum of this many shares; full_clamp: no partner's coordinate can exceed it; least_clamp:
    with less room than this the sum would be bent; rounds: of the whole plan; failure:
    probability charged to delta for the rounding bound; tail: normal quantile that a noise
    share passes with the probability charged to delta for saturation.
    """

    name: str
    size: int
    clip_norm: float
    noise_multiplier: float
    shares: int
    full_clamp: float
    least_clamp: float
    rounds: int
    failure: float
    tail: float


@dataclass(frozen=True)
class Grid:
    """step: units of the sum per integer; clamp_steps: public range of a partner's coordinate
    before noise; share_std_steps: noise of one partner; shift: bound on one customer's squared
    change in steps; inflation: sensitivity after rounding over clip_norm, over the plan; bits: of
    the integers."""

    bits: int

    step: float
    clamp_steps: int
    share_std_steps: float
    shift: SquaredShift
    inflation: float


def tail_quantile(failure: float, draws: float) -> float:
    """z with P[any of ``draws`` normals is beyond +-z] <= ``failure``."""
    return -float(ndtri_exp(math.log(failure / (2 * draws))))


def choose_grid(need: Need, bits: int) -> Grid:
    """The finest grid that holds ``full_clamp`` if its inflation is within 2%; else the widest
    clamp within 2%; else the finest grid up to 5% that holds ``least_clamp``.

    Guarantee: clamp + tail share stds + 1 lies within the signed integers of ``bits`` bits.
    Raises PlanImpossible naming the bits that would do.
    """
    grid = _search(need, bits)
    if grid is not None:
        return grid
    enough = next((more for more in range(bits + 1, MOST_BITS + 1) if _search(need, more)), None)
    what = (f"{bits} bits cannot hold the noisy sum of region {need.name} ({need.size} values, "
            f"noise multiplier {need.noise_multiplier:.3g}) with rounding below "
            f"{MAX_INFLATION - 1:.0%} of the sensitivity")
    if enough is not None:
        raise PlanImpossible(
            "encryption.bits", what, f"use encryption.bits={enough}, or a larger "
            "privacy.epsilon, fewer strategy.rounds or a smaller model", enough)
    raise PlanImpossible(
        "privacy.epsilon", f"{what}, nor can up to {MOST_BITS}, with noise of "
        f"{MIN_TOTAL_STD_STEPS:g} grid steps and more and shares up to {_SHARE_STD_STEPS[-1]:g}",
        "use fewer strategy.rounds, a smaller model or another privacy.epsilon")


def plain_grid(full_clamp: float, bits: int) -> Grid:
    """A grid without noise of its own that holds ``full_clamp``."""
    limit = 2 ** (bits - 1) - 1
    step = next(step for step in _steps(full_clamp / limit / 2) if step * limit >= full_clamp)
    return Grid(bits, step, math.ceil(full_clamp / step), 0.0, SquaredShift(0.0, 0.0), 1.0)


def _steps(smallest: float) -> Iterator[float]:
    """Ascending steps with few mantissa bits: exact in binary, so all parties agree on them."""
    exponent = math.floor(math.log2(smallest))
    while True:
        for mantissa in range(16, 32):
            yield math.ldexp(mantissa, exponent - 4)
        exponent += 1


def _search(need: Need, bits: int) -> Grid | None:
    grids = (_within(need, bits, bound) for bound in _SHARE_STD_STEPS)
    return next((grid for grid in grids if grid is not None), None)


def _within(need: Need, bits: int, most_share_std_steps: float) -> Grid | None:
    wide, fine = None, None
    least_share_std_steps = max(MIN_SHARE_STD_STEPS, MIN_TOTAL_STD_STEPS / math.sqrt(need.shares))
    least_share_std = need.clip_norm * need.noise_multiplier / math.sqrt(need.shares)
    for step in _steps(least_share_std / most_share_std_steps):
        grid = _at(need, step, bits)
        if grid.inflation > MAX_INFLATION or grid.share_std_steps < least_share_std_steps:
            break
        clamp = grid.clamp_steps * step
        if clamp < need.least_clamp or grid.share_std_steps > most_share_std_steps:
            continue
        if grid.inflation <= TARGET_INFLATION:
            if clamp >= need.full_clamp:
                return grid
            wide = grid
        fine = fine or grid
    return wide or fine


def _at(need: Need, step: float, bits: int) -> Grid:
    limit = 2 ** (bits - 1) - 1
    # A coordinate of up to ``limit`` steps is a float, of which summing and dividing by the step
    # may each move the last bit, at either neighbour: 2^-51 of it. Nothing at 16 bits, 10^-6 at 32.
    floats = limit * 2.0 ** -51 * math.sqrt(need.size)
    shift = squared_shift(need.clip_norm / step + floats, need.size, need.rounds, need.failure)
    sensitivity = math.sqrt(shift.total(need.rounds) / need.rounds)
    share = need.noise_multiplier * sensitivity / math.sqrt(need.shares)
    # One step more than the normal tail: P[discrete >= m] <= P[normal >= m - 1]
    # (arXiv 2004.00010, proposition 25).
    room = limit - math.ceil(need.tail * share) - 1
    clamp_steps = min(room, math.ceil(need.full_clamp / step))
    return Grid(bits, step, clamp_steps, share, shift, sensitivity * step / need.clip_norm)
