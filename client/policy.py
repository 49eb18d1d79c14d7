"""What a site agrees to, in a file of its own, whatever a server asks for.

The ledger bounds what a run costs a customer; this bounds what it may tell about the partner. A
configuration is checked before the key or any data is read. That covers every later message: a
session belongs to one configuration and one policy (``client.app`` keys it by both), so a message
under another configuration, or under a policy that was changed meanwhile, is checked anew.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

from conf.schema import Config
from encryption.types import Refused
from learning.registry import TASKS

ESTIMATES_DIFFER = 2.0
"""By no larger factor may a run's public estimate of customers differ from the policy's: partners
grow, and estimates are rounded; but in ``local_dp`` they are weights, and a partner that a
server makes a thousand times as heavy would be alone in the sum."""
_SHOWN = 5


class PolicyRefused(Refused):
    """The run asks for what this site's policy does not allow. One word for every reason: which
    it was stands in the site's own log alone."""


@dataclass(frozen=True)
class Most:
    """Largest numbers of a run that cost a site time or memory, or leave others out of a sum."""

    rounds: int = 1000
    hidden: int = 128
    kernel: int = 8
    """With hidden, at eight levels: a million parameters."""
    local_steps: int = 100
    categories: int = 500
    snapshots: int = 64
    history_days: int = 731
    holdout_fraction: float = 0.5
    """Of a partner's customers, who then train nothing: nearly all of the others' would leave one
    partner's sum."""


@dataclass(frozen=True)
class SitePolicy:
    """Parsed by ``client.policy_file``, which documents and checks every key.

    partners: known ones, this site's own included; customers: their public estimates, in the same
    order. least_quorum: fewest partners in a sum that may be opened. least_customers: fewest
    customers of the others in it, whoever's it is; 30 customers at their clips weigh as much as the
    noise of a whole run at epsilon 3 over 457 parameters (sqrt(457) / .72 clips), and fewer
    would hide nothing that noise does not. changed_sets: how many further sets of partners the
    opener may open on a model that was opened with another set. columns, categories, days (first
    and last, ISO): None allows what the allowed tasks read, any, and any. least_history_days: of
    purchases that an example looks back on: within a day or two a server would find dates on which
    the others have no customers. time_zone: of the homes'
    clock, "" where times have no offset. calendars: (partner, first/last day of its purchases), as
    in ``task.calendars``: without them no run may give partners calendars of their own.
    epsilon_per_run: what a run asks for that says nothing else.
    """

    partners: tuple[str, ...]
    customers: tuple[int, ...]
    least_quorum: int
    least_customers: int = 30
    changed_sets: int = 0
    tasks: tuple[str, ...] = tuple(sorted(TASKS))
    columns: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    days: tuple[str, str] | None = None
    privacy: tuple[str, ...] = ("local_dp", "noise_shares")
    encryption: tuple[str, ...] = ("shared_key", "shared_key_rlwe")
    openings: tuple[str, ...] = ("revealed", "sealed")
    epsilon_per_run: float = 3.0
    delta: float = 1e-5
    least_history_days: int = 28
    time_zone: str = ""
    calendars: tuple[tuple[str, str], ...] = ()
    most: Most = field(default_factory=Most)

    @classmethod
    def known(cls, customers: Mapping[str, int]) -> SitePolicy:
        """The defaults, for partners and their public estimates of customers."""
        return cls(tuple(customers), tuple(customers.values()), max(2, len(customers)))

    def check(self, config: Config) -> None:
        """Raises PolicyRefused with every reason and what to change; its text names no data."""
        reasons = [f"{key}: {reason}" for part in (_partners, _choices, _numbers, _dates)
                   for key, reason in part(self, config)]
        if reasons:
            raise PolicyRefused("\n  ".join((
                "this site's policy does not allow the run. Ask the operator for another "
                "configuration, or, if the site agrees, change the policy:", *reasons)))


def _partners(policy: SitePolicy, config: Config) -> Iterator[tuple[str, str]]:
    """Who is in a sum, how many of them, and how many customers they bring."""
    partners, estimates = config.federation.partners, config.federation.customers
    known = dict(zip(policy.partners, policy.customers, strict=True))
    if not partners:
        yield "federation.partners", "names nobody: the run's configuration lists its partners"
        return
    unknown = [name for name in partners if name not in known]
    if unknown:
        yield ("federation.partners", f"{_listed(_with_twins(unknown, known))}: this site "
               "does not know them; add those that it does to [partners]")
    if len(set(partners)) < len(partners):
        yield "federation.partners", "names a partner twice; no policy allows that"
    if config.quorum < policy.least_quorum:
        yield ("strategy.quorum", f"sums of {config.quorum} partners could be opened, and the "
               f"policy's least_quorum is {policy.least_quorum}: with fewer, two sums subtracted "
               "show a partner's own")
    holding = config.task.holdout_partners
    if holding and len(set(holding)) < policy.least_quorum:
        yield ("task.holdout_partners", f"only {_listed(map(repr, holding))} hold customers out, "
               f"and the policy's least_quorum is {policy.least_quorum}: the test would release "
               "sums over these alone. Name as many partners, or none, which means all")
    wrong = [f"{name!r} {estimates.get(name, 0):,} (policy: {known[name]:,})"
             for name in partners if name in known
             and not 1 <= ESTIMATES_DIFFER * estimates.get(name, 0) / known[name]
             <= ESTIMATES_DIFFER ** 2]
    if wrong:
        yield ("federation.customers", f"{_listed(wrong)} differ from the policy's by more than "
               f"a factor of {ESTIMATES_DIFFER:g}; correct [partners], if they are true")
    others = sum(sorted(known[name] for name in set(partners) & set(known))[:config.quorum - 1])
    if not unknown and others < policy.least_customers:
        yield ("strategy.quorum", f"beside one partner only {others:,} customers, by the policy's "
               f"estimates, may be in an opened sum, and least_customers is "
               f"{policy.least_customers:,}: more partners, a larger quorum, or, if the site "
               "agrees, a smaller least_customers")


def _choices(policy: SitePolicy, config: Config) -> Iterator[tuple[str, str]]:
    """What is named: modes, tasks, and what they read."""
    for key, value, allowed in (
            ("privacy", config.privacy.name, policy.privacy),
            ("encryption", config.encryption.name, policy.encryption),
            ("openings", config.encryption.opening, policy.openings),
            ("tasks", config.task.name, policy.tasks)):
        if value not in allowed:
            yield key, f"{value!r} is none of {', '.join(allowed) or 'nothing'}"
    if policy.columns is not None:
        read = sorted(set(TASKS[config.task.name].columns) - set(policy.columns))
        if read:
            yield ("columns", f"task={config.task.name} reads {', '.join(read)} too, which the "
                   "policy does not list")
    if config.task.time_zone != policy.time_zone:
        yield ("time_zone", f"the run's is {_shortened(config.task.time_zone)}, the policy's "
               f"{policy.time_zone!r}: on another clock other rows would be at fault")
    agreed = dict(policy.calendars)
    strange = sorted(name for name, span in config.task.calendars.items()
                     if agreed.get(name) != span)
    if strange:
        yield ("calendars", f"the run's calendar of {_listed(map(_shortened, strange))} is none of "
               "the policy's: on days on which the others have no customers, a sum over all "
               "partners would be one partner's own. Write them below [calendars]")
    if policy.categories is not None:
        asked = [name for name in config.task.categories if name not in policy.categories]
        if asked:
            yield ("categories", f"{_listed(map(_shortened, asked))} not listed: a sum over what "
                   "one partner alone sells would be its own")


def _numbers(policy: SitePolicy, config: Config) -> Iterator[tuple[str, str]]:
    """What a run may ask at most, by the policy's key."""
    task, privacy, most = config.task, config.privacy, policy.most
    if privacy.name != "none" and privacy.epsilon > policy.epsilon_per_run:
        yield ("epsilon_per_run", f"the run's privacy.epsilon of {privacy.epsilon:g} is above "
               f"{policy.epsilon_per_run:g}")
    if privacy.delta > policy.delta:
        yield "delta", f"the run's privacy.delta of {privacy.delta:g} is above {policy.delta:g}"
    if config.task.history_days < policy.least_history_days:
        yield ("least_history_days", f"the run's task.history_days of {task.history_days} is below "
               f"{policy.least_history_days}: on a few days one partner alone may have customers")
    for key, asked, limit in (
            ("rounds", config.strategy.rounds, most.rounds),
            ("hidden", config.model.hidden, most.hidden),
            ("kernel", config.model.kernel, most.kernel),
            ("local_steps", privacy.local_steps, most.local_steps),
            ("categories", len(task.categories), most.categories),
            ("snapshots", len(task.train_snapshots), most.snapshots),
            ("history_days", task.history_days, most.history_days),
            ("holdout_fraction", task.holdout_fraction, most.holdout_fraction)):
        if asked > limit:
            yield f"most.{key}", f"the run asks for {asked:g}, above {limit:g}"


def _dates(policy: SitePolicy, config: Config) -> Iterator[tuple[str, str]]:
    """Dates outside ``days``: there others may have no customers yet, or none any more."""
    if policy.days is None:
        return
    task = config.task
    named = [*task.train_snapshots, task.validation_snapshot, task.test_snapshot,
             *(day for span in task.calendars.values() for day in span.split("/"))]
    first, last = policy.days
    outside = [day for day in named if day and not _within(day, first, last)]
    if outside:
        yield "days", f"{_listed(map(_shortened, outside))} lie outside {first} to {last}"


def _within(day: str, first: str, last: str) -> bool:
    """False for what is no date. As dates: 20170101 is one too, and sorts otherwise as text."""
    try:
        return date.fromisoformat(first) <= date.fromisoformat(day) <= date.fromisoformat(last)
    except ValueError:
        return False


def _with_twins(names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Each name, and the known one that it may be taken for."""
    alike = {plain(name): name for name in known}
    for name in names:
        twin = alike.get(plain(name))
        yield _shortened(name) + (f" (not the {twin!r} of the policy)" if twin else "")


def plain(name: str) -> str:
    """What of a name a reader sees: without case, width, marks and spaces."""
    return "".join(mark for mark in unicodedata.normalize("NFKD", name).casefold()
                   if mark.isalnum() and not unicodedata.combining(mark))


def _shortened(text: str) -> str:
    """Another party's text for a log: one line, of bounded length."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more"
                                        if len(found) > _SHOWN else "")
