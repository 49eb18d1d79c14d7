"""What the retail tasks share: where purchases come from, who trains, and padding by customer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from conf.schema import InvalidConfig, TaskConfig
from learning import complete_journey, tables
from learning.customers import InputShape
from learning.holdout import first_by_hash, held_out
from learning.partner_file import cached
from learning.table_checks import checked_events
from learning.tables import iso_day
from learning.weekly_history import CHANNELS, weeks_of

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Source:
    """Real purchases that a task can do without a table of one's own. digest: changes when
    ``events`` may change; neither it nor ``partners`` fetches anything."""

    name: str
    where: str
    digest: Callable[[], str]
    events: Callable[[], pl.DataFrame]
    partners: Callable[[], tuple[str, ...]]


COMPLETE_JOURNEY = Source("complete_journey", complete_journey.SOURCE, complete_journey.digest,
                          complete_journey.events, complete_journey.partners)


def split_by_partner(config: TaskConfig, source: Source, folder: Path) -> dict[str, Path]:
    """Partner -> its file of canonical events, from the table of ``config.path`` or from
    ``source``. Raises TableError, InvalidConfig."""
    if config.path is None:
        name = source.name.replace("_", "-")
        return cached(f"{name}-{source.digest()[:16]}", source.events, folder)
    if not Path(config.path).is_file():
        raise InvalidConfig("task.path", f"{config.path} is no file: name one table")
    return cached(tables.cache_key(config), partial(checked_events, config), folder)


def describe(config: TaskConfig, source: Source,
             feature_names: tuple[str, ...]) -> dict[str, object]:
    """Where the data comes from, without data: name, source, digest, partners, features."""
    path = config.path
    if path is None:
        facts = (source.name, source.where, source.digest(), source.partners())
    else:
        facts = (Path(path).stem, Path(path).name, tables.digest(path), tables.partners(path))
    keys = ("name", "source", "digest", "partners")
    return {**dict(zip(keys, facts, strict=True)), "features": feature_names}


def layout(made: tuple[str, ...], history_days: int,
           history: bool) -> tuple[InputShape, tuple[str, ...]]:
    """Of examples that ask about one category: ``made`` features and, if wanted, the weeks of
    learning.weekly_history behind them; and the names of both."""
    if not history:
        return InputShape(1, len(made)), made
    shape = InputShape(1, len(made), weeks_of(history_days), len(CHANNELS))
    return shape, (*made, *(f"{channel}, by week" for channel in CHANNELS))


def divided(names: Sequence[str], partner: str, config: TaskConfig,
            seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) who trains, and (n,) who is held out: by each customer's name alone."""
    out = np.zeros(len(names), np.bool_)
    if not config.holdout_partners or partner in config.holdout_partners:
        out = held_out(names, seed, config.holdout_fraction)
    training = ~out
    if partner == config.newcomer_partner:
        training &= first_by_hash(names, seed, training, config.newcomer_customers)
    return training, out


def places(row: NDArray[np.int64], priority: NDArray[np.generic], rows: int, most: int
           ) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]],
                      NDArray[np.bool_]]:
    """Examples grouped by customer: which of them (m,) stay, their place in arrays
    (rows, e, ...), and the mask (rows, e).

    row: (m,) whose an example is, 0 to rows - 1. Of more than ``most`` examples of one, those of
    least ``priority`` (m,) stay, in its order.
    """
    order = np.lexsort((priority, row))
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < most
    source, target = order[kept], (row[order][kept], place[kept])
    mask = np.zeros((rows, int(min(most, counts.max(initial=1)))), np.bool_)
    mask[target] = True
    return source, target, mask


def day_number(iso: str) -> int:
    """Days from 1970-01-01 to an ISO date."""
    return (date.fromisoformat(iso) - _EPOCH).days


def check_calendar(config: TaskConfig) -> None:
    """Raises InvalidConfig for a calendar in which the label of an example would overlap what is
    predicted later."""
    if not config.train_snapshots:
        raise InvalidConfig("task.train_snapshots", "is empty: give at least one ISO date")
    step = timedelta(days=config.horizon_days)
    train = [iso_day("task.train_snapshots", day) for day in config.train_snapshots]
    validation = iso_day("task.validation_snapshot", config.validation_snapshot)
    test = iso_day("task.test_snapshot", config.test_snapshot)
    for key, day, earliest in (
            ("task.validation_snapshot", validation, max(train) + step),
            ("task.test_snapshot", test, validation + step * config.horizons)):
        if day < earliest:
            raise InvalidConfig(key, f"must be {earliest} or later: before that, earlier labels "
                                "are still open")


def with_vocabulary(config: TaskConfig) -> TaskConfig:
    """``config`` checked, with the calendar (and a vocabulary that ``top_categories`` asks for)
    filled in. Raises InvalidConfig."""
    config.validate()
    calendar = (config.train_snapshots, config.validation_snapshot, config.test_snapshot)
    if config.top_categories or not all(calendar):
        config = tables.prepare_task(config)
    if not config.categories:
        raise InvalidConfig("task.categories", "is empty; name the categories to learn, for "
                            "example 'task.categories=[MILK,BREAD]'")
    check_calendar(config)
    return config
