"""The width of a value and the plans that fit it, from the public configuration alone.

``encryption.bits`` is the least width. Where the noisy sum of the largest partner's customers does
not fit it, noise shares take the fewest bits at which no partner's sum is ever cut to a range, or,
where the cipher has no room for them, the fewest at which a plan exists. One width serves training
and test: a key belongs to one choice of parameters, and a bit more costs a fraction of a byte.
Splitting a value into digits instead would show how often partners carried (``privacy.digits``);
``local_dp`` and ``none`` may do that, to metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from conf.schema import Config, InvalidConfig
from encryption.parameters import ImpossibleParameters, choose_parameters, most_bits
from encryption.types import Parameters
from learning.registry import head_mask, make_task
from privacy.grid import PlanImpossible, narrowest
from privacy.plan import PrivacyPlan
from privacy.regions import MetricSums

_EPSILONS = (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
_MANY = 1024
Plans = tuple[PrivacyPlan, PrivacyPlan]


@dataclass(frozen=True)
class Sizes:
    """What the plans of a run are made for. customers_bound: of the largest partner; update and
    kept: parameters that are opened and those that stay at the partners."""

    partners: int
    quorum: int
    customers_bound: int
    expected_customers: int
    update: int
    kept: int
    metric: MetricSums

    @classmethod
    def of(cls, config: Config) -> Sizes:
        """Of a configuration that names partners, customers and categories."""
        mask, task = head_mask(config), make_task(config)
        return cls(len(config.federation.partners), config.quorum,
                   max(config.federation.customers.values()), config.expected_customers,
                   mask.own.size - mask.size, mask.size,
                   MetricSums(task.metric.size, task.metric.clip, task.loss.clip))

    @classmethod
    def least(cls, config: Config) -> Sizes:
        """What the plans would need whatever the data: a model and a metric of one number, one
        customer each, and many partners, unless the configuration says how few answer."""
        quorum = config.strategy.quorum or max(_MANY, config.privacy.colluders + 1)
        return cls(1, quorum, 1, quorum, 1, 0, MetricSums(1, 1.0, 1.0))


SizesOf = Callable[[Config], Sizes]


def agreed(config: Config, sizes_of: SizesOf = Sizes.of) -> tuple[Parameters, PrivacyPlan,
                                                                 PrivacyPlan]:
    """Parameters of the cipher, the plan of training and that of the test. Raises InvalidConfig,
    by the key to change; a value that it names has been tried."""
    try:
        training, test = _plans(config, sizes_of(config))
    except ImpossibleParameters as error:
        raise InvalidConfig("encryption.bits", str(error)) from None
    except PlanImpossible as error:
        cure = _cures(config, sizes_of) if error.key != "privacy.colluders" else error.cure
        raise InvalidConfig(error.key, f"{error.why}: {cure}") from None
    partners = sizes_of(config).partners
    return choose_parameters(config.encryption.name, partners, training.bits), training, test


def check_before_data(config: Config) -> None:
    """Raises InvalidConfig where no data at all could be trained on with these settings."""
    agreed(config, Sizes.least)


def _plans(config: Config, sizes: Sizes) -> Plans:
    """Raises PlanImpossible, ImpossibleParameters."""
    least, suite = config.encryption.bits, config.encryption.name
    most = most_bits(suite, sizes.partners)
    if least > most:
        raise ImpossibleParameters(
            f"sums of {sizes.partners} partners leave room for {most} bits a value with "
            f"encryption={suite}, and {least} are asked for; use encryption.bits={most}")
    return narrowest(least, most, lambda bits: _plans_at(config, sizes, bits), _whole)


def _plans_at(config: Config, sizes: Sizes, bits: int) -> Plans:
    return (
        PrivacyPlan.training(
            config.privacy, rounds=config.strategy.rounds, quorum=sizes.quorum, bits=bits,
            update_size=sizes.update, metric=sizes.metric, customers_bound=sizes.customers_bound,
            expected_customers=sizes.expected_customers, feedback=config.encryption.feedback,
            kept=sizes.kept),
        PrivacyPlan.test(
            config.privacy, quorum=sizes.quorum, bits=bits, metric=sizes.metric,
            customers_bound=sizes.customers_bound))


def _whole(plans: Plans) -> bool:
    return all(region.whole for plan in plans for region in plan.regions)


def _cures(config: Config, sizes_of: SizesOf) -> str:
    """For each key that may help, the nearest value that does."""
    found = [text for candidates in _candidates(config)
             if (text := _first(candidates, sizes_of)) is not None]
    if not found:
        return ("no other privacy.epsilon, strategy.rounds or model.hidden alone would do; change "
                "several of them")
    data = "" if sizes_of == Sizes.of else "with the smallest model and data "
    return f"{data}what would do is {', or '.join(found)}"


def _first(candidates: Iterator[tuple[str, Config]], sizes_of: SizesOf) -> str | None:
    for text, changed in candidates:
        try:
            _plans(changed, sizes_of(changed))
        except (PlanImpossible, ImpossibleParameters):
            continue
        return text
    return None


def _candidates(config: Config) -> Iterator[Iterator[tuple[str, Config]]]:
    """Of each key other values, the mildest change first, and the configuration they give."""
    privacy, strategy, model = config.privacy, config.strategy, config.model
    epsilons = ([value for value in _EPSILONS if value > privacy.epsilon]
                + [value for value in reversed(_EPSILONS) if value < privacy.epsilon])
    yield ((f"privacy.epsilon={value:g}",
            replace(config, privacy=replace(privacy, epsilon=float(value))))
           for value in epsilons)
    yield ((f"strategy.rounds={value}", replace(config, strategy=replace(strategy, rounds=value)))
           for value in _halves(strategy.rounds))
    if model.name != "linear":
        yield ((f"model.hidden={value}", replace(config, model=replace(model, hidden=value)))
               for value in _halves(model.hidden))
    if config.encryption.name == "shared_key":
        yield iter([("encryption=shared_key_rlwe", replace(
            config, encryption=replace(config.encryption, name="shared_key_rlwe")))])
    most = len(config.federation.partners)
    if most > config.quorum:
        yield iter([(f"strategy.quorum={most}",
                     replace(config, strategy=replace(strategy, quorum=most)))])


def _halves(value: int) -> list[int]:
    return [value >> shift for shift in range(1, value.bit_length())]
