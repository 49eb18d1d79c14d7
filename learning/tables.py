"""Bring your own data: one table of purchases, CSV or Parquet. Format: docs/data.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from conf import typed
from conf.schema import InvalidConfig, TaskConfig
from learning.partner_file import COLUMNS
from learning.table_files import (
    first_row,
    header,
    is_parquet,
    named_twice,
    no_table,
    plain_name,
    separator,
)

REQUIRED = ("partner", "customer", "time", "category")
OPTIONAL = {"quantity": 1.0, "value": 0.0}
"""Columns that may be absent, and what then stands in every row."""
TRAIN_SNAPSHOTS = 9
OFFSET = r"Z|[+-](?:(?:0\d|1[0-3]):?[0-5]\d|14:?00)"
"""Pattern of an offset from UTC; no clock stands further off than 14 hours."""
SHOWN = 5
"""Rows named per finding."""
ROW = "ROW"
"""Column of row numbers in a part of a table; no column of the table itself has capitals."""
_TIME = rf"^\d{{4}}-\d{{2}}-\d{{2}}([ T]\d{{2}}:\d{{2}}(:\d{{2}}(\.\d+)?)?({OFFSET})?)?$"
_EMPTY = ("", "nan", "null")
_RULES = ("partner_names.py", "table_checks.py", "table_files.py", "tables.py")


@dataclass(frozen=True)
class Finding:
    """One kind of defect in one column. ``rows``: the first few, as a person counts them (the
    header of a CSV is line 1; a Parquet file begins with row 1); ``count``: how many in all;
    ``key``: the override that cures it, where one does."""

    severity: str
    column: str
    text: str
    cure: str
    rows: tuple[int, ...] = ()
    count: int = 0
    key: str = "task.path"

    def __str__(self) -> str:
        where = f"row {', '.join(map(str, self.rows))}" if self.rows else ""
        if self.count > len(self.rows):
            where += f" and {self.count - len(self.rows):,} more"
        place = ", ".join(part for part in (f"column {self.column}" if self.column else "", where)
                          if part)
        return f"{place}: {self.text}; {self.cure}" if place else f"{self.text}; {self.cure}"


class TableError(InvalidConfig):
    """A table that cannot be used. ``findings``: all errors, the worst first; ``site``: the partner
    at whose site it lies, if it lies at one; ``task``: by which it is read, if that is known."""

    def __init__(self, path: Path | str, findings: Sequence[Finding], site: str | None = None,
                 task: str = "") -> None:
        shown = "".join(f"\n- {finding}" for finding in findings[:5])
        more = f"\n- and {len(findings) - 5} more kinds of errors" if len(findings) > 5 else ""
        super().__init__(findings[0].key, f"{path} cannot be used:{shown}{more}\n"
                         f"`{typed.validate_data(path, task, site)}`, with your other settings of "
                         "the task, shows everything")
        self.findings = tuple(findings)


@dataclass(frozen=True)
class Checked:
    """What a person is told about a table. partners: (name, customers, rows) each, none where
    there is an error; rows: what a row is, "purchases"; summary: how it will be used."""

    findings: tuple[Finding, ...]
    partners: tuple[tuple[str, int, int], ...] = ()
    rows: str = ""
    summary: str = ""

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class Table:
    """A parsed table. raw: as read, every cell text or its Parquet type; parsed: COLUMNS and
    ``row`` as a person counts, null where a cell is empty or cannot be understood."""

    path: Path
    raw: pl.DataFrame
    parsed: pl.DataFrame


def read_table(file: Path | str, site: str | None = None,
               raw: pl.DataFrame | None = None) -> Table:
    """Read and parse without judging rows. ``site``: a partner who has the file to itself; only
    then may the partner column be missing. ``raw``: some of its rows, each with its number (ROW),
    where it is too large to be read at once (learning.large_table). Raises TableError if that is
    not possible: no file, not a table, a required column missing."""
    path = Path(file)
    raw = read_raw(path) if raw is None else raw
    missing = [name for name in REQUIRED if name not in raw.columns
               and (name != "partner" or site is None)]
    if missing:
        cure = f"add it or rename one of: {', '.join(raw.columns)}"
        if any(name.startswith("load_") for name in raw.columns):
            cure = "for readings of meters give task=utility_load"
        raise TableError(path, [Finding("error", name, "the column is missing", cure)
                                for name in missing])
    if not len(raw):
        raise TableError(path, [Finding("error", "", "the table has no rows", "add purchases")])
    parsed = raw.select(
        row_number(path, raw),
        *(text(name) if name in raw.columns else pl.lit(site).alias(name)
          for name in ("partner", "customer")),
        _time(raw.schema["time"]),
        text("category"),
        *(number(name) if name in raw.columns else pl.lit(value).alias(name)
          for name, value in OPTIONAL.items()),
    )
    return Table(path, raw, parsed)


def row_number(path: Path, raw: pl.DataFrame) -> pl.Expr:
    """"row", as a person counts."""
    number = pl.col(ROW) if ROW in raw.columns else pl.int_range(pl.len()) + first_row(path)
    return number.cast(pl.Int64).alias("row")


def canonical(table: Table) -> pl.DataFrame:
    """The rows that count, in COLUMNS: complete ones with a quantity above 0."""
    return (table.parsed.drop_nulls(REQUIRED).filter(pl.col("quantity") > 0)
            .with_columns(pl.col("value").fill_null(0.0).clip(0.0))
            .select(pl.col(name).cast(kind) for name, kind in COLUMNS.items()))


def prepare_task(config: TaskConfig, site: str | None = None) -> TaskConfig:
    """Everything a run must agree on made explicit: the calendar, and the vocabulary if
    ``top_categories`` asks for one. Idempotent. Reads the table of ``path``, if there is one.
    Raises InvalidConfig, TableError."""
    if config.path is None:
        from learning.complete_journey import LAST_DAY

        if config.top_categories:
            raise InvalidConfig("task.top_categories", "is for own tables (task.path); the "
                                "bundled data has the categories of task.categories")
        return with_calendar(config, date.fromisoformat(LAST_DAY))
    if not config.top_categories and config.train_snapshots and config.validation_snapshot and (
            config.test_snapshot):
        return config
    table = read_table(config.path, site)
    rows = canonical(table)
    if not len(rows):
        raise TableError(config.path, _why_none(table), site, config.name)
    if config.top_categories:
        frequent = (rows.group_by("category").len().sort("len", "category",
                    descending=[True, False]).head(config.top_categories))
        config = replace(config, categories=sorted(frequent["category"]), top_categories=0)
    days = rows["time"].dt.date()
    return with_calendar(config, days.max(), days.min())  # type: ignore[arg-type]


def _why_none(table: Table) -> list[Finding]:
    """Errors of a table of which no row counts: what its rows show, if they do."""
    from learning.table_checks import check_rows

    errors = [finding for finding in check_rows(table) if finding.severity == "error"]
    return errors or [Finding("error", "", "no row is complete and has a quantity above 0",
                              "fix the rows")]


def with_calendar(config: TaskConfig, last_day: date, first_day: date | None = None) -> TaskConfig:
    """Fill in the snapshots that ``config`` leaves empty, counted back from the last day.

    The test snapshot leaves exactly ``horizons`` horizons of days for labels; validation lies as
    much earlier; up to TRAIN_SNAPSHOTS training snapshots begin as much before that (a model is
    then nearly as old in validation as it will be in the test), each one horizon before the next,
    as long as a whole history lies before them (at least one is kept).
    """
    step = timedelta(days=config.horizon_days)
    period = step * config.horizons
    test = config.test_snapshot or (last_day + timedelta(days=1) - period).isoformat()
    validation = config.validation_snapshot or (iso_day("task.test_snapshot", test)
                                                - period).isoformat()
    newest = iso_day("task.validation_snapshot", validation) - period
    earliest = newest if first_day is None else first_day + timedelta(days=config.history_days)
    train = config.train_snapshots or [
        (newest - back * step).isoformat() for back in reversed(range(TRAIN_SNAPSHOTS))
        if back == 0 or first_day is None or newest - back * step >= earliest]
    return replace(config, test_snapshot=test, validation_snapshot=validation,
                   train_snapshots=train)


def iso_day(key: str, value: str) -> date:
    """Raises InvalidConfig naming ``key``."""
    if not value:
        raise InvalidConfig(key, "is empty: give an ISO date such as 2017-09-17")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise InvalidConfig(key, f"{value!r} is not an ISO date such as 2017-09-17") from None


def digest(path: Path | str) -> str:
    """SHA-256 of the file; empty where this machine does not have it (a deployment's server)."""
    return file_digest(Path(path)) if Path(path).is_file() else ""


def file_digest(path: Path) -> str:
    """SHA-256 of a file that may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_key(config: TaskConfig) -> str:
    """Names the checked partner files of one table under one calendar and vocabulary; what an
    older release let pass or read otherwise is checked again."""
    settings = {**asdict(config), "newcomer_partner": None, "newcomer_customers": 0, "path": None}
    text = json.dumps([digest(str(config.path)), settings, rules(_RULES)], sort_keys=True)
    return "table-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def rules(names: Sequence[str]) -> list[str]:
    """Modules beside this one that read and judge tables, as they are now."""
    return [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names]


def partners(path: Path | str) -> tuple[str, ...]:
    """Names in the table; none where this machine does not have it."""
    if not Path(path).is_file():
        return ()
    return tuple(sorted(read_table(path).parsed["partner"].drop_nulls().unique()))


def read_raw(path: Path, task: str = "") -> pl.DataFrame:
    """The cells of a CSV or Parquet file, columns by their names in small letters. Raises
    TableError, which says that it is of ``task``."""
    wrong = no_table(path)
    if wrong:
        raise TableError(path, [Finding("error", "", *wrong)], task=task)
    try:
        if is_parquet(path):
            frame = pl.read_parquet(path, glob=False)
        else:
            frame = pl.read_csv(path, infer_schema=False, separator=separator(path), glob=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise unreadable(path, error, task) from None
    twice = named_twice(frame.columns) or ([] if is_parquet(path) else named_twice(header(path)))
    if twice:
        raise TableError(path, [Finding("error", name, "several columns have this name",
                                        "keep one, or rename the others") for name in twice],
                         task=task)
    return frame.rename({name: plain_name(name) for name in frame.columns})


def unreadable(path: Path, error: Exception, task: str = "") -> TableError:
    reason = str(error).strip().splitlines()[0]
    return TableError(path, [Finding(
        "error", "", f"it cannot be read ({reason})",
        "give a CSV in UTF-8 with a header, or Parquet")], task=task)


def far_off(rows: pl.DataFrame, owner: Sequence[str], days: int) -> pl.Series:
    """Per row ("time" may be null): whether more than ``days`` without a row of the same
    ``owner`` (columns) lie between it and most of the owner's: its date is wrong."""
    gap = pl.duration(days=days)
    known = rows.select(*owner, "time").with_row_index("place").drop_nulls()
    span = pl.col("time").max() - pl.col("time").min()
    wide = known.group_by(owner).agg(span > gap).filter("time").drop("time")
    late = (pl.col("time").diff() > gap).fill_null(False).over(owner)
    stretches = (known.join(wide, on=owner, how="semi").sort("time")
                 .with_columns(stretch=late.cum_sum().over(owner)))
    most = pl.col("stretch").mode().max().over(owner)
    places = stretches.filter(pl.col("stretch") != most)["place"]
    return rows.select(pl.int_range(pl.len()).is_in(places.implode())).to_series()


def text(name: str) -> pl.Expr:
    """A column as text, null where it is empty."""
    return _filled(pl.col(name).cast(pl.String)).alias(name)


def are_names(column: pl.Expr) -> pl.Expr:
    """Whether :func:`text` would change nothing in a column of text, and there is no null."""
    return (_filled(column) == column).fill_null(False).all()


def _filled(column: pl.Expr) -> pl.Expr:
    text = column.str.strip_chars()
    return pl.when(~text.str.to_lowercase().is_in(_EMPTY)).then(text)


def _time(kind: pl.DataType) -> pl.Expr:
    column = pl.col("time")
    if isinstance(kind, pl.Datetime):
        return column.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if kind == pl.Date:
        return column.cast(pl.Datetime("us"))
    text = column.cast(pl.String).str.strip_chars()
    known = pl.when(text.str.contains(_TIME)).then(
        text.str.replace("T", " ", literal=True).str.slice(0, 19).str.strip_chars("Z"))
    short = known.otherwise(None)
    formats = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")
    return pl.coalesce(
        *(short.str.to_datetime(form, strict=False, time_unit="us") for form in formats),
        short.str.slice(0, 16).str.to_datetime("%Y-%m-%d %H:%M", strict=False, time_unit="us"),
    ).alias("time")


def number(name: str) -> pl.Expr:
    """A column as finite numbers, null elsewhere."""
    column = pl.col(name).cast(pl.String).str.strip_chars()
    number = column.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number).alias(name)
