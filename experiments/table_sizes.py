"""Whether partners of a table's sizes can train with the given settings: no array is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from conf.schema import Config
from experiments.partition import shares


def check_sizes(config: Config, path: Path, customers: Mapping[str, int],
                site: str | None = None) -> str:
    """What a value and an update would weigh, in words. customers: of each partner of the table, or
    of the one at ``site``, whose peers are taken to be as large, and as few as the settings allow.
    Raises InvalidConfig, by the key to change."""
    from learning.registry import prepare
    from strategies.agreement import Agreement

    config = prepare(replace(config, task=replace(config.task, path=str(path))), site)
    # Names must not meet settings that are about partners elsewhere.
    counts = dict(enumerate(_parts(config, customers) if site is None
                            else _peers(config, *customers.values())))
    named = {f"partner {place + 1}": _training(config, count) for place, count in counts.items()}
    calendars = dict.fromkeys(named, next(iter(config.task.calendars.values()), ""))
    task = replace(config.task, path=None, holdout_partners=[], newcomer_partner=None,
                   newcomer_customers=0, calendars=calendars if config.task.calendars else {})
    whole = replace(config, task=task, strategy=replace(config.strategy, opener=""),
                    federation=replace(config.federation, partners=list(named), customers=named))
    return Agreement.of(whole.validate()).describe_width(config.encryption.bits)


def _parts(config: Config, customers: Mapping[str, int]) -> list[int]:
    """With federation.split_into, as many as a simulation would make; a wrong number is its to
    refuse."""
    wanted = config.federation.split_into
    if not len(customers) <= wanted <= sum(customers.values()):
        return list(customers.values())
    return [-(-customers[name] // parts)
            for name, parts in shares(customers, wanted).items() for _ in range(parts)]


def _peers(config: Config, own: int) -> list[int]:
    least = config.privacy.colluders + 1 if config.privacy.name == "noise_shares" else 1
    return [own] * max(least, config.strategy.quorum)


def _training(config: Config, customers: int) -> int:
    return max(1, round(customers * (1 - config.task.holdout_fraction)))
