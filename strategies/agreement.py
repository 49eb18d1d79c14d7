"""What server and clients derive, each for itself, from one public configuration."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema import Config, InvalidConfig
from encryption.control import ControlLayout
from encryption.parameters import ImpossibleParameters, choose_parameters
from encryption.types import Parameters, Refused
from learning.metrics import HISTOGRAM_SIZE
from learning.models import get_flat
from learning.registry import make_model
from privacy.plan import PlanImpossible, PrivacyPlan


@dataclass(frozen=True)
class Agreement:
    """Parameters of the cipher and the two releases of a run: rounds of training, then one
    test release over held-out customers."""

    parameters: Parameters
    partners: tuple[str, ...]
    training: PrivacyPlan
    test: PrivacyPlan

    @classmethod
    def of(cls, config: Config) -> Agreement:
        """Raises InvalidConfig, by the key to change, when no such run is possible."""
        partners = tuple(config.federation.partners)
        update_size = get_flat(make_model(config)).size
        customers_bound = max(config.federation.customers.values())
        try:
            parameters = choose_parameters(
                config.encryption.name, len(partners), config.encryption.bits)
            training = PrivacyPlan.training(
                config.privacy, rounds=config.strategy.rounds, quorum=config.quorum,
                bits=config.encryption.bits, update_size=update_size,
                histogram_size=HISTOGRAM_SIZE, customers_bound=customers_bound)
            test = PrivacyPlan.test(
                config.privacy, quorum=config.quorum, bits=config.encryption.bits,
                histogram_size=HISTOGRAM_SIZE, customers_bound=customers_bound)
        except ImpossibleParameters as error:
            raise InvalidConfig("encryption.bits", str(error)) from None
        except PlanImpossible as error:
            raise InvalidConfig(error.key, str(error)) from None
        return cls(parameters, partners, training, test)

    def plan(self, kind: str) -> PrivacyPlan:
        if kind not in ("train", "test"):
            raise Refused("the request is neither for training nor for the test")
        return self.training if kind == "train" else self.test

    def layout(self, kind: str) -> ControlLayout:
        return ControlLayout(self.plan(kind).total_size, len(self.partners), self.parameters)
