"""The file ``policy.toml`` of a site: read once, every fault named at once; and a first one."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from client.policy import Most, SitePolicy, plain
from conf.schema import EncryptionConfig, PrivacyConfig
from learning.registry import TASKS

NAME = "policy.toml"
COLUMNS = tuple(sorted({column for task in TASKS.values() for column in task.columns}))
_EXAMPLE = {"north": 600, "south": 400}
_KEYS = {field.name for field in fields(SitePolicy)} - {"customers"}
_MOST = {field.name for field in fields(Most)}


class PolicyError(ValueError):
    """The file cannot be used; the text lists every fault, by key, and its cure."""


def read(path: Path) -> SitePolicy:
    """Raises PolicyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise PolicyError(f"{path}: cannot be read ({error})") from None
    try:
        return parse(text)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def parse(text: str) -> SitePolicy:
    """Raises PolicyError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"is not TOML: {error}") from None
    faults: list[str] = []
    values = {key: value for key, value in tree.items() if _known(key, _KEYS, "", faults)}
    partners = _partners(values.pop("partners", None), faults)
    most = _most(values.pop("most", {}), faults)
    calendars = _calendars(values.pop("calendars", {}), faults)
    found = {key: _value(key, value, faults) for key, value in values.items()}
    given = {key: value for key, value in found.items() if value is not None}
    count = max(2, len(partners))
    quorum = given.setdefault("least_quorum", count)
    if partners and quorum > count:
        faults.append(f"least_quorum: {quorum} of {len(partners)} known partners can never be; "
                      "give a smaller number or add partners")
    if faults:
        raise PolicyError("\n  ".join(("this policy cannot be used:", *faults)))
    return SitePolicy(tuple(partners), tuple(partners.values()), most=Most(**most),
                      calendars=calendars, **given)


def _known(key: str, keys: set[str], prefix: str, faults: list[str]) -> bool:
    if key not in keys:
        faults.append(f"{prefix}{key}: no such key; there are {', '.join(sorted(keys))}")
    return key in keys


def _partners(value: object, faults: list[str]) -> dict[str, int]:
    """Name -> estimate; empty where the table is at fault, which ``faults`` then says."""
    cure = "write below [partners] one line for each, this site's own too: north = 600"
    if not isinstance(value, dict) or len(value) < 2:
        faults.append("partners: a table of two partners at least, with about how many customers "
                      f"each trains on; no default can be right. {cure}")
        return {}
    before = len(faults)
    seen: dict[str, str] = {}
    for name, customers in value.items():
        if name in _KEYS or name in _MOST:
            where = "above [partners]" if name in _KEYS else "below [most]"
            faults.append(f"partners.{name}: is a key of the policy; move its line {where}")
        elif isinstance(customers, bool) or not isinstance(customers, int) or customers < 1:
            faults.append(f"partners.{name}: must be a whole number of customers from 1, got "
                          f"{customers!r}; {cure}")
        twin = seen.setdefault(plain(name), name)
        if twin != name:
            faults.append(f"partners: {twin!r} and {name!r} look alike; rename one, or drop it if "
                          "they are one partner")
    return {} if len(faults) > before else value


def _calendars(value: object, faults: list[str]) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        faults.append('calendars: is a table; write below [calendars] a line for each partner such '
                      'as north = "2000-11-01/2001-02-28"')
        return ()
    return tuple((name, "/".join(span)) for name, text in value.items()
                 if (span := _days(str(text).split("/"), faults, f"calendars.{name}")))


def _most(value: object, faults: list[str]) -> dict[str, float]:
    if not isinstance(value, dict):
        faults.append("most: is a table; write below [most] a line such as rounds = 500")
        return {}
    good: dict[str, float] = {}
    for key, number in value.items():
        if not _known(key, _MOST, "most.", faults):
            continue
        if key == "holdout_fraction":
            checked = _between(f"most.{key}", number, 0.0, 1.0, faults)
        else:
            checked = _whole(f"most.{key}", number, 1, faults)
        good |= {} if checked is None else {key: checked}
    return good


def _value(key: str, value: object, faults: list[str]) -> Any:
    """What the policy holds for one key, None where it is at fault."""
    match key:
        case "least_quorum":
            return _whole(key, value, 2, faults)
        case "least_customers" | "changed_sets" | "least_history_days":
            return _whole(key, value, 0, faults)
        case "epsilon_per_run":
            return _between(key, value, 0.0, 100.0, faults)
        case "delta":
            return _between(key, value, 0.0, 1e-2, faults)
        case "days":
            return _days(value, faults)
        case "time_zone":
            return _zone(value, faults)
    return _names(key, value, faults)


def _whole(key: str, value: object, least: int, faults: list[str]) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2 ** 53:
        faults.append(f"{key}: must be a whole number from {least}, got {value!r}")
        return None
    return value


def _between(key: str, value: object, above: float, most: float,
             faults: list[str]) -> float | None:
    if (isinstance(value, bool) or not isinstance(value, int | float)
            or not math.isfinite(value) or not above < value <= most):
        faults.append(f"{key}: must lie above {above:g}, at most {most:g}, got {value!r}")
        return None
    return float(value)


def _days(value: object, faults: list[str], key: str = "days") -> tuple[str, str] | None:
    try:
        first, last = (day if isinstance(day, date) else date.fromisoformat(day)
                       for day in value)  # type: ignore[attr-defined]
        if first <= last:
            return first.isoformat()[:10], last.isoformat()[:10]
    except (TypeError, ValueError):
        pass
    faults.append(f'{key}: must be the first and the last, ["2017-01-01", "2017-12-31"] (in '
                  f'[calendars] "2017-01-01/2017-12-31"), got {value!r}')
    return None


def _zone(value: object, faults: list[str]) -> str | None:
    if isinstance(value, str) and (not value or value in available_timezones()):
        return value
    faults.append(f'time_zone: must be a time zone such as "Europe/Paris", or "", got {value!r}')
    return None


_CHOICES: Mapping[str, tuple[str, ...] | None] = {
    "tasks": tuple(sorted(TASKS)),
    "columns": COLUMNS,
    "categories": None,
    "privacy": PrivacyConfig.CHOICES,
    "encryption": EncryptionConfig.CHOICES,
    "openings": EncryptionConfig.OPENINGS,
}
"""Key -> what may be listed; None: any text."""


def _names(key: str, value: object, faults: list[str]) -> tuple[str, ...] | None:
    choices = _CHOICES[key]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        some = '"A", "B"' if choices is None else ", ".join(f'"{name}"' for name in choices[:2])
        faults.append(f"{key}: must be a list of names, [{some}] say, got {value!r}")
        return None
    wrong = [name for name in value if choices is not None and name not in choices]
    if wrong:
        faults.append(f"{key}: {', '.join(map(repr, wrong))} is none of "
                      f"{', '.join(choices or ())}")
        return None
    return tuple(value)


def starter(customers: Mapping[str, int] = _EXAMPLE) -> str:
    """The text of a policy for ``customers`` (partner -> public estimate of its training
    customers) with every key at its default, explained. It parses to :meth:`SitePolicy.known`."""
    known = SitePolicy.known(customers)
    lines: list[str] = []
    for key, text in _MEANING.items():
        value = getattr(known, key)
        shown = _toml(value) if value is not None else _toml(_EXAMPLES[key])
        lines += [f"# {line}" for line in text.splitlines()] + [f"# {key} = {shown}", ""]
    lines += ["# About how many customers each partner trains on, this site's own too. Others are",
              "# refused, and so are runs whose estimates differ by more than a factor of two.",
              "[partners]", *(f"{_toml(name)} = {count}" for name, count in customers.items()),
              "", "# First and last day of each partner's purchases, for task=retail_cross. A run",
              "# with other calendars is refused: on days on which the others have no customers, a",
              "# sum over all partners would be one partner's own.", "# [calendars]",
              *(f'# {_toml(name)} = "2017-01-01/2017-12-31"' for name in customers),
              "", "# Largest numbers that a run may ask for: they cost time and memory.",
              "[most]", *(f"# {field.name} = {_toml(getattr(known.most, field.name))}"
                for field in fields(Most))]
    return _HEAD + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """JSON's texts, numbers and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


_HEAD = """\
# What this site agrees to, whatever the operator's server asks for. Lines that begin with # show
# the defaults: take the mark away to change one. A run that asks for anything else is refused
# before the site's data is read; why stands in this site's log alone.

"""
_EXAMPLES: Mapping[str, object] = {
    "columns": COLUMNS, "categories": ["MILK", "BREAD"], "days": ["2017-01-01", "2017-12-31"]}
_MEANING: Mapping[str, str] = {
    "least_quorum": "Fewest partners in a sum that is opened. With fewer than all, two sums "
                    "subtracted show\na partner's own (`veilsum exposure` says how much).",
    "least_customers": "Fewest customers, by [partners], that the others bring to any opened sum.",
    "changed_sets": "How many further sets of partners may be opened on a model that was opened "
                    "with another.",
    "tasks": "Questions that may be asked of this site's data.",
    "columns": "Columns that a task may read. Left out: all that the tasks above read.",
    "categories": "Categories that a retail task may name. Left out: any. Name those that all "
                  "partners sell:\na sum over what one partner alone sells is its own.",
    "days": "First and last day that a run's calendar may name. Left out: any. Name a span in "
            "which all\npartners have customers, for the same reason.",
    "least_history_days": "Fewest days of purchases that an example may look back on: on a few "
                          "days one partner\nalone may have customers.",
    "time_zone": "Clock of the homes, as task.time_zone names it; empty where times have no "
                 "offset.",
    "privacy": "Ways to protect customers.",
    "encryption": "Ways to encrypt updates.",
    "openings": "Who may see the model: the operator too (revealed), or key holders (sealed).",
    "epsilon_per_run": "Largest privacy.epsilon and privacy.delta of a run. The node "
                       "configuration's\nepsilon-limit bounds all runs together.",
    "delta": "",
}
