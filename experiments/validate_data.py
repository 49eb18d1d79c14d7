"""``veilsum validate-data``: what is wrong with a table, by row and column, before training."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conf.schema import Config, TaskConfig
    from learning.tables import Checked, Finding

FORMAT = """\
The table is one CSV (UTF-8, with a header; comma, semicolon or tab) or Parquet file.
In the retail tasks one row is one purchase:

  partner    who sold it: the organisation that will be one client
  customer   whose purchase: the unit that privacy protects
  time       2017-03-26 or 2017-03-26 14:05:00
  category   what was bought, as named in task.categories
  quantity   optional, above 0 (rows with 0 or less are left out)
  value      optional, money, 0 or more

Other columns are ignored. Rows are counted as in a text editor: the header of a CSV is line 1.

For task=utility_load one row is one reading (or FILE is a folder of such tables):

  partner         who supplies it; in a folder without the column, the file's name
  customer        the home
  time            beginning of 15, 30 or 60 minutes: 2024-03-26 14:15, with or without +01:00
  load_kwh        or load_wh, or load_kw for a mean power
  temperature_c   optional, outdoors

Settings that the table is judged by are given as in `veilsum simulate`, for example
  veilsum validate-data purchases.csv task.top_categories=30
  veilsum validate-data purchases.csv 'task.categories=[MILK,BREAD]' task.history_days=56
  veilsum validate-data meters.csv task=utility_load task.time_zone=Europe/Paris

The file that lies at one partner's site is checked as the site reads it; it may lack the partner
column, and holds no other partner:
  veilsum validate-data meters.csv --site north task=utility_load

Exit code: 0 usable (there may be warnings), 2 not usable.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum validate-data", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a table before training on it: every defect by row and column.",
        epilog=FORMAT)
    parser.add_argument("file", metavar="FILE", type=Path,
                        help="CSV or Parquet; a folder of them for task=utility_load")
    parser.add_argument("--site", metavar="PARTNER",
                        help="FILE is what lies at this partner's site, not a whole federation")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE",
                        help="task and its settings, as in `veilsum simulate`")
    options = parser.parse_intermixed_args(argv)
    if options.site is not None and options.file.is_dir():
        parser.error(f"--site: {options.file} is a folder, and a site's data-path is one file")
    from experiments.launch import compose_and_run

    judged: list[int] = []
    # The path goes around Hydra's grammar, in which commas and brackets have a meaning.
    code = compose_and_run(
        "veilsum validate-data", options.overrides,
        lambda config: judged.append(
            _validate(config, options.file, options.overrides, options.site)))
    return code or max(judged)


def _validate(config: Config, path: Path, overrides: list[str], site: str | None) -> int:
    from dataclasses import replace

    from rich.console import Console
    from rich.markup import escape

    from conf import typed

    console = Console(emoji=False)
    checked = _check(replace(config.task, path=str(path)), site)
    if checked.findings:
        console.print(_findings_table(checked.findings, path))
    if checked.errors:
        kinds = "1 kind" if checked.errors == 1 else f"{checked.errors} kinds"
        console.print(f"[bold red]{escape(str(path))} cannot be used: {kinds} of errors.")
        return 2
    if site is None and not config.federation.split_into:
        config.task.check_partners([name for name, _, _ in checked.partners])
    console.print(_partners_table(checked))
    console.print(checked.summary, highlight=False, markup=False)
    sizes = {name: customers for name, customers, _ in checked.partners}
    console.print(_weight(config, path, sizes, site), highlight=False, markup=False)
    if site is not None:
        console.print(f"[green]Usable[/] at the site of {escape(site)}, as data-path of its node "
                      "configuration", highlight=False)
        return 0
    words = shlex.join([f"task.path={typed.value(str(path))}", *overrides])
    console.print(f"[green]Usable:[/] veilsum simulate {escape(words)}", highlight=False,
                  soft_wrap=True)
    return 0


def _weight(config: Config, path: Path, sizes: dict[str, int], site: str | None) -> str:
    """Raises InvalidConfig where partners of these sizes cannot train with these settings."""
    from experiments.table_sizes import check_sizes

    found = check_sizes(config, path, sizes, site)
    if site is None:
        return f"In a simulation of this table {found}."
    return f"With peers of this size {found}."


def _check(task: TaskConfig, site: str | None) -> Checked:
    from learning import load_checks, table_checks

    return (load_checks if task.name == "utility_load" else table_checks).check(task, site)


def _findings_table(found: Sequence[Finding], path: Path) -> object:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=escape(f"{path.name}: findings"), box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("", "column", "rows", "what", "cure"):
        grid.add_column(heading, overflow="fold")
    for finding in found:
        rows = ", ".join(map(str, finding.rows))
        more = finding.count - len(finding.rows)
        colour = "red" if finding.severity == "error" else "yellow"
        grid.add_row(f"[{colour}]{finding.severity}", escape(finding.column),
                     rows + (f" and {more:,} more" if more > 0 else ""),
                     escape(finding.text), escape(finding.cure))
    return grid


def _partners_table(checked: Checked) -> object:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title="Partners", title_justify="left")
    for heading in ("partner", "customers", checked.rows):
        grid.add_column(heading, justify="right" if heading != "partner" else "left")
    for name, customers, rows in checked.partners:
        grid.add_row(escape(name), f"{customers:,}", f"{rows:,}")
    return grid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
