"""What server and clients derive, each for itself, from one public configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf.schema import Config, InvalidConfig
from encryption.accumulator import update_bytes
from encryption.control import ControlLayout
from encryption.types import OpenedSum, Parameters, Refused
from privacy.plan import PrivacyPlan
from strategies.widths import agreed


@dataclass(frozen=True)
class Agreement:
    """Parameters of the cipher and the two releases of a run: rounds of training, then one
    test release over held-out customers."""

    parameters: Parameters
    partners: tuple[str, ...]
    weights: Mapping[str, float]
    """Partner -> its part of the divisor of an opened update. Public: an estimate of customers
    where sums of customers are opened; their share (mean 1) where each partner sends a model
    difference of its own (local_dp), which it multiplies by the same weight."""
    training: PrivacyPlan
    test: PrivacyPlan
    sealed: bool
    """Whether the update stays with the opener (``encryption.opening=sealed``)."""
    head_divisors: Mapping[str, float]
    """Partner -> what its own head's sum of updates is divided by, public. Its estimate of
    customers, but the mean of all partners' at least: the sum of a few customers is mostly noise,
    and their head should move little. In ``local_dp`` as ``weights``."""

    @classmethod
    def of(cls, config: Config) -> Agreement:
        """Raises InvalidConfig, by the key to change, when no such run is possible."""
        partners = tuple(config.federation.partners)
        if not partners:
            raise InvalidConfig("federation.partners", "names nobody; list the partners, and give "
                                "federation.customers for each")
        customers = config.federation.customers
        mean = config.expected_customers / len(partners)
        own_models = config.privacy.name == "local_dp"
        weights = {name: customers[name] / (mean if own_models else 1) for name in partners}
        head_divisors = weights if own_models else {
            name: max(weight, mean) for name, weight in weights.items()}
        parameters, training, test = agreed(config)
        return cls(parameters, partners, weights, training, test,
                   config.encryption.opening == "sealed", head_divisors)

    def divisor(self, partners: tuple[str, ...]) -> float:
        """What the opened sum of these partners is divided by. The same bits in any order."""
        return math.fsum(self.weights[name] for name in partners)

    def mean_update(self, opened: OpenedSum) -> NDArray[np.float64]:
        """(d - k,): what a round's opened sum moves the model along. The same bits at every party:
        exact integers, times a step of few mantissa bits, divided once."""
        names = tuple(self.partners[index] for index in opened.partners)
        return self.training.dequantise(opened.values)["update"] / self.divisor(names)

    def leaving(self, kind: str, opened: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part of an opened sum (total_size,) that may leave the opener: all, but no update
        where the model is sealed."""
        return opened[self._kept(kind):]

    def leaving_size(self, kind: str) -> int:
        return self.plan(kind).total_size - self._kept(kind)

    def dequantise(self, kind: str, left: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """:meth:`leaving`'s integers -> region name -> sum (real units)."""
        kept = self._kept(kind)
        sums = self.plan(kind).dequantise(np.concatenate([np.zeros(kept, np.int64), left]))
        return {name: total for name, total in sums.items() if not kept or name != "update"}

    def _kept(self, kind: str) -> int:
        """The update comes first in a training plan."""
        regions = self.plan(kind).regions
        return regions[0].size if self.sealed and regions[0].name == "update" else 0

    def plan(self, kind: str) -> PrivacyPlan:
        if kind not in ("train", "test"):
            raise Refused("the request is neither for training nor for the test")
        return self.training if kind == "train" else self.test

    def layout(self, kind: str) -> ControlLayout:
        return ControlLayout(self.plan(kind).total_size, len(self.partners), self.parameters)

    def describe_width(self, asked: int) -> str:
        """What a value and an update weigh, in words for whoever starts the run. asked: the least
        width that the configuration names."""
        bits, size = self.parameters.bits, update_bytes(self.layout("train"))
        wider = (f" ({asked} asked for; the noisy sum of the largest partner needs more)"
                 if bits > asked else "")
        words = (f"values have {bits} bits{wider}, {self.parameters.bytes_per_value:.2f} bytes "
                 f"each; a partner sends {size:,} bytes a round")
        update = self.training.regions[0]
        if update.whole:
            return words
        return (f"{words}; were all customers of the largest to pull one value, "
                f"{update.clamp / update.largest:.0%} of that would fit and the rest be cut "
                "(more encryption.bits hold more)")
