"""A public calendar for each partner: retailers whose data end in other years, or are shorter."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import polars as pl

from conf.schema import InvalidConfig, TaskConfig
from learning.tables import canonical, iso_day, read_table, with_calendar


def interval(first: str, last: str) -> str:
    """An ISO 8601 interval of days, both included."""
    return f"{first}/{last}"


def of_table(config: TaskConfig, site: str | None = None) -> TaskConfig:
    """``config`` with the first and last day of each partner of its table. Raises TableError, and
    InvalidConfig where a whole federation's table lacks a partner that has a calendar."""
    day = pl.col("time").dt.date().cast(pl.String)
    rows = canonical(read_table(str(config.path), site)).group_by("partner").agg(
        day.min().alias("first"), day.max().alias("last")).sort("partner")
    if site is None:
        replace(config, holdout_partners=[]).check_partners(rows["partner"].to_list())
    return replace(config, calendars={
        partner: config.calendars.get(partner, interval(first, last))
        for partner, first, last in rows.iter_rows()})


def of_partner(config: TaskConfig, partner: str) -> TaskConfig:
    """``config`` with the snapshots of one partner. Raises InvalidConfig."""
    key = f"task.calendars.{partner}"
    text = config.calendars.get(partner)
    if text is None:
        raise InvalidConfig(key, "is missing: give the first and last day of this partner's "
                            f"purchases, for example '+{key}=2024-01-01/2024-12-31'")
    first, last = _days(key, text)
    needed = config.history_days + 3 * config.horizons * config.horizon_days
    if (last - first).days + 1 < needed:
        raise InvalidConfig(key, f"{text} is {(last - first).days + 1} days long and {needed} are "
                            "needed: shorten task.history_days or task.horizon_days")
    return with_calendar(config, last, first)


def _days(key: str, text: str) -> tuple[date, date]:
    first, slash, last = text.partition("/")
    if not slash:
        raise InvalidConfig(key, f"{text!r} is not an interval of two ISO dates such as "
                            "2024-01-01/2024-12-31")
    return iso_day(key, first), iso_day(key, last)
