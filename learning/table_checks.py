"""What is wrong with a table, by row and column, and what cures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from conf import typed
from conf.schema import InvalidConfig, TaskConfig
from learning import partner_calendars
from learning.partner_names import alike, confused
from learning.tables import (
    OPTIONAL,
    REQUIRED,
    SHOWN,
    Checked,
    Finding,
    Table,
    TableError,
    canonical,
    far_off,
    iso_day,
    prepare_task,
    read_table,
)

MINIMUM_CUSTOMERS = 10
"""Fewest customers of a partner with any purchase in the calendar."""
FEW_CUSTOMERS = 100
FAR_DAYS = 2 * 366
"""No partner sells nothing for longer: a purchase this far from the others has a wrong date, and
the calendar would be counted back from it."""
_LARGE_BYTES = 4 << 30


def check_file(config: TaskConfig,
               site: str | None = None) -> tuple[list[Finding], Table | None]:
    """All findings about the table of ``config.path``, errors first, and the table if it could
    be read at all. ``site``: the partner who has it to itself, if one does."""
    try:
        table = read_table(str(config.path), site)
    except TableError as error:
        return list(error.findings), None
    found = check_rows(table)
    if not _far_off(table).any():  # else the calendar is counted back from a day that never was
        found += check_partners(table, config, site)
    return sorted(found, key=lambda finding: finding.severity != "error"), table


def check(config: TaskConfig, site: str | None = None) -> Checked:
    """The same for a person: findings, and what each partner brings."""
    found, table = check_file(config, site)
    if table is None or any(finding.severity == "error" for finding in found):
        return Checked(tuple(found))
    counts = canonical(table).group_by("partner").agg(
        pl.col("customer").n_unique(), pl.len()).sort("partner")
    if config.name == "retail_cross":
        config = partner_calendars.of_table(config, site)
        tests = (f"{partner} {partner_calendars.of_partner(config, partner).test_snapshot}"
                 for partner in sorted(config.calendars))
        return Checked(tuple(found), tuple(counts.iter_rows()), "purchases",
                       f"Test snapshots: {', '.join(tests)}.")
    config = prepare_task(config, site)
    return Checked(
        tuple(found), tuple(counts.iter_rows()), "purchases",
        f"Training snapshots {', '.join(config.train_snapshots)}; validation "
        f"{config.validation_snapshot}; test {config.test_snapshot}. "
        f"{len(config.categories)} categories.")


def checked_events(config: TaskConfig) -> pl.DataFrame:
    """Canonical events of all partners. Raises TableError with every error found."""
    found, table = check_file(config)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors or table is None:
        raise TableError(str(config.path), errors, task=config.name)
    return canonical(table)


def check_rows(table: Table) -> list[Finding]:
    """What each row shows by itself, and rows that repeat another."""
    return [*check_customers(table), *_far(table), *_size(table)]


def check_customers(table: Table) -> list[Finding]:
    """Those of them that look at rows of one customer at most."""
    return [*_cells(table), *_quantities(table), *_duplicates(table)]


def far_days(days: pl.DataFrame) -> list[Finding]:
    """Days ("partner", "time", first "row", "len" rows) that are far from the partner's others:
    :func:`check_rows` says it of rows."""
    whole = days.group_by("partner", "time").agg(pl.col("row").min(), pl.col("len").sum())
    far = whole.filter(far_off(whole, ("partner",), FAR_DAYS)).sort("row")
    if far.is_empty():
        return []
    return [Finding("error", "time", f"{far['time'][0]:%Y-%m-%d} lies more than {FAR_DAYS} days "
                    "from the partner's other purchases", "correct the date or drop the row",
                    tuple(far["row"].head(SHOWN)), int(far["len"].sum()))]


def check_partners(table: Table, config: TaskConfig, site: str | None = None) -> list[Finding]:
    """What only the whole table under the task's calendar and vocabulary shows."""
    rows = canonical(table)
    if not len(rows):
        return [Finding("error", "", "no row is complete and has a quantity above 0",
                        "fix the rows")]
    if config.name == "retail_cross":
        return _own_calendars(rows, config, site)
    config = prepare_task(config, site)
    return [*_categories(rows, config), *_calendar(rows, config),
            *_customers(rows, config, site)]


def _own_calendars(rows: pl.DataFrame, config: TaskConfig, site: str | None) -> list[Finding]:
    """Each partner under its own calendar; no vocabulary."""
    found = federation(rows["partner"].unique().sort().to_list(), site)
    config = partner_calendars.of_table(config, site)
    for (partner,), own in sorted(rows.partition_by("partner", as_dict=True).items()):
        try:
            calendar = partner_calendars.of_partner(config, partner)
        except InvalidConfig as error:
            found.append(Finding("error", "time", f"{partner!r}: {error.reason}",
                                 "or leave the partner out", key=error.key))
            continue
        found += [replace(finding, text=f"{partner!r}: {finding.text}")
                  for finding in _calendar(own, calendar)]
        found += _enough(own, calendar)
    return [*found, *shared_names(rows)]


def _cells(table: Table) -> Iterator[Finding]:
    cures = {
        "time": "write 2017-03-26 or 2017-03-26 14:05",
        "quantity": "write a number with a decimal point, such as 2 or 0.5",
        "value": "write a number with a decimal point, such as 12.95",
    }
    for name in (*REQUIRED, *OPTIONAL):
        if name not in table.raw.columns:
            continue
        raw = table.raw[name].cast(pl.String).str.strip_chars()
        empty = raw.is_null() | raw.str.to_lowercase().is_in(["", "nan", "null"])
        unknown = table.parsed[name].is_null()
        yield from _rows(table, empty & unknown, "error", name, "is empty or not a number"
                         if name in OPTIONAL else "is empty", "fill it in or drop the row")
        bad = unknown & ~empty
        example = raw.filter(bad).head(1).to_list()
        yield from _rows(table, bad, "error", name, f"cannot read {example[0]!r}" if example
                         else "", cures.get(name, "correct it"))


def _far(table: Table) -> Iterator[Finding]:
    far = _far_off(table)
    for day in table.parsed.filter(far)["time"].head(1).dt.to_string("%Y-%m-%d"):
        yield from _rows(table, far, "error", "time", f"{day} lies more than {FAR_DAYS} days from "
                         "the partner's other purchases", "correct the date or drop the row")


def _far_off(table: Table) -> pl.Series:
    return far_off(table.parsed, ("partner",), FAR_DAYS)


def _quantities(table: Table) -> Iterator[Finding]:
    yield from _rows(table, (table.parsed["quantity"] <= 0).fill_null(False), "warning",
                     "quantity", "is 0 or below", "the rows are left out (returns, corrections)")
    yield from _rows(table, (table.parsed["value"] < 0).fill_null(False), "warning", "value",
                     "is below 0", "it counts as 0")


def _duplicates(table: Table) -> Iterator[Finding]:
    columns = [name for name in (*REQUIRED, *OPTIONAL) if name in table.raw.columns]
    repeats = ~table.parsed.select(pl.struct(columns).is_first_distinct()).to_series()
    complete = table.parsed.select(pl.all_horizontal(pl.col(REQUIRED).is_not_null())).to_series()
    yield from _rows(table, repeats & complete, "error", "", "repeats an earlier row exactly",
                     "drop the repeats, or add them up in a quantity column")


def _size(table: Table) -> Iterator[Finding]:
    size = table.path.stat().st_size
    if size > _LARGE_BYTES:
        yield Finding("warning", "", f"the file has {size / 2**30:.0f} GiB and is read at once",
                      "split it by partner if memory runs out")


def _categories(rows: pl.DataFrame, config: TaskConfig) -> Iterator[Finding]:
    known = set(config.categories)
    counts = rows.group_by("category").len().sort("len", "category", descending=[True, False])
    unknown = counts.filter(~pl.col("category").is_in(list(known)))
    if len(unknown) == len(counts):
        named = typed.listed("task.categories", counts["category"].head(3).to_list(), ",...")
        wanted = min(30, len(counts))
        yield Finding(
            "error", "category", "no category of the task occurs",
            f"name yours: {named}, or declare the {wanted} most frequent ones "
            f"public: task.top_categories={wanted}", key="task.categories")
    elif len(unknown):
        share = unknown["len"].sum() / counts["len"].sum()
        names = ", ".join(unknown["category"].head(3))
        yield Finding("warning", "category",
                      f"{len(unknown):,} categories ({share:.0%} of rows) are not in "
                      f"task.categories: {names}{', ...' if len(unknown) > 3 else ''}",
                      "their rows count as visits only; to ask about them, name them in "
                      f"task.categories or set task.top_categories={min(30, len(counts))}")
    absent = sorted(known - set(counts["category"]))
    if absent and len(absent) < len(known):
        yield Finding("warning", "category", f"{len(absent)} categories of the task never occur: "
                      f"{', '.join(absent[:3])}", "drop them from task.categories")


def _calendar(rows: pl.DataFrame, config: TaskConfig) -> Iterator[Finding]:
    first, last = rows["time"].dt.date().min(), rows["time"].dt.date().max()
    assert isinstance(first, date) and isinstance(last, date)
    begin, end = _span(config)
    if first > begin:
        days = (last - first).days + 1
        needed = config.history_days + 3 * config.horizons * config.horizon_days
        cure = (f"the table spans {days} days and {needed} are needed: shorten "
                "task.history_days or task.horizon_days") if days < needed else (
                    "set task.train_snapshots later")
        yield Finding("error", "time", f"the first training snapshot looks back to {begin}, the "
                      f"table begins {first}", cure, key="task.train_snapshots")
    if last < end - timedelta(days=1 + config.horizon_days // 2):
        yield Finding("error", "time", f"the test snapshot {config.test_snapshot} needs purchases "
                      f"until {end - timedelta(days=1)}, the table ends {last}",
                      "set the snapshots earlier, or leave them empty to count back from the "
                      "last day", key="task.test_snapshot")
    outside = int(((rows["time"].dt.date() < begin) | (rows["time"].dt.date() >= end)).sum())
    if outside:
        yield Finding("warning", "time", f"{outside:,} purchases lie outside the task's calendar "
                      f"({begin} to {end - timedelta(days=1)})", "they are not used")


def _customers(rows: pl.DataFrame, config: TaskConfig, site: str | None) -> Iterator[Finding]:
    yield from federation(rows["partner"].unique().sort().to_list(), site)
    yield from _enough(rows, config)
    yield from shared_names(rows)


def shared_names(rows: pl.DataFrame) -> Iterator[Finding]:
    """Whether names of customers occur at several partners ("partner", "customer")."""
    if rows.select("partner", "customer").unique()["customer"].is_duplicated().any():
        yield Finding("warning", "customer", "some names occur at several partners",
                      "they count as different customers, each protected by itself; if they are "
                      "the same, let one partner have all their rows")


def federation(names: Sequence[str], site: str | None) -> list[Finding]:
    """What is wrong with the partners that a table names: of a whole federation, or at a site."""
    if site is not None:
        return foreign(names, site)
    if len(names) > 1:
        return [*_named(names),
                *(Finding("warning", "partner", what, "if they are one partner, name it alike in "
                          "every row, else its customers count twice") for what in alike(names))]
    return [*_named(names), Finding("error", "partner", f"there is only one partner, {names[0]!r}",
                    "a federation needs at least 2, and with privacy=noise_shares more than "
                    "privacy.colluders; to check the file of one site, add --site PARTNER")]


def _named(names: Sequence[str]) -> list[Finding]:
    return [Finding("error", "partner", what, cure) for what, cure in confused(names)]


def foreign(names: Sequence[str], site: str | None) -> list[Finding]:
    """What is wrong with the partners that a file at the ``site`` of one names."""
    if len(names) > 1:
        return [Finding("error", "partner", f"holds {len(names)} partners",
                        "a site's file holds its own customers only")]
    if site is not None and names and names[0] != site:
        return [Finding("error", "partner", f"names {names[0]!r}, and this is the site of {site!r}",
                        f"let the site's data-path name the file of {site!r}, or its partner be "
                        f"{names[0]!r}")]
    return _named(names)


def _enough(rows: pl.DataFrame, config: TaskConfig) -> Iterator[Finding]:
    """Customers of each partner within the calendar."""
    begin, end = _span(config)
    counts = dict.fromkeys(sorted(rows["partner"].unique()), 0)
    inside = rows.filter(pl.col("time").dt.date().is_between(begin, end, closed="left"))
    counts.update(inside.group_by("partner").agg(pl.col("customer").n_unique()).iter_rows())
    for partner, count in counts.items():
        if count < MINIMUM_CUSTOMERS:
            what = "has no purchases" if not count else f"has only {count} customers"
            yield Finding("error", "partner", f"{partner!r} {what} between {begin} and {end}",
                          f"each partner needs {MINIMUM_CUSTOMERS} customers: leave it out or "
                          "check its dates")
        elif count < FEW_CUSTOMERS:
            yield Finding("warning", "partner", f"{partner!r} has only {count} customers",
                          "its own row of the results will be uncertain")


def _span(config: TaskConfig) -> tuple[date, date]:
    """First day of the earliest history, and the day after the last label."""
    begin = min(iso_day("task.train_snapshots", day) for day in config.train_snapshots)
    end = iso_day("task.test_snapshot", config.test_snapshot)
    period = timedelta(days=config.horizon_days * config.horizons)
    return begin - timedelta(days=config.history_days), end + period


def _rows(table: Table, bad: pl.Series, severity: str, column: str, text: str,
          cure: str) -> Iterator[Finding]:
    yield from row_findings(table.parsed, bad, severity, column, text, cure)


def row_findings(parsed: pl.DataFrame, bad: pl.Series, severity: str, column: str, text: str,
                 cure: str) -> Iterator[Finding]:
    """One finding that names the first of the ``bad`` rows, or none."""
    count = int(bad.sum())
    if count:
        rows = parsed["row"].filter(bad).head(SHOWN)
        yield Finding(severity, column, text, cure, tuple(rows), count)
