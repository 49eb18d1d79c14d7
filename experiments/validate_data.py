"""``veilsum validate-data``: what is wrong with a table, by row and column, before training."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conf.schema import TaskConfig
    from learning.tables import Finding, Table

FORMAT = """\
The table is one CSV (UTF-8, with a header; comma, semicolon or tab) or Parquet file.
One row is one purchase.

  partner    who sold it: the organisation that will be one client
  customer   whose purchase: the unit that privacy protects
  time       2017-03-26 or 2017-03-26 14:05:00
  category   what was bought, as named in task.categories
  quantity   optional, above 0 (rows with 0 or less are left out)
  value      optional, money, 0 or more

Other columns are ignored. Rows are counted as in a text editor: the header of a CSV is line 1.

Settings that the table is judged by are given as in `veilsum simulate`, for example
  veilsum validate-data purchases.csv task.top_categories=30
  veilsum validate-data purchases.csv 'task.categories=[MILK,BREAD]' task.history_days=56

Exit code: 0 usable (there may be warnings), 2 not usable.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="veilsum validate-data", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a table before training on it: every defect by row and column.",
        epilog=FORMAT)
    parser.add_argument("file", metavar="FILE", type=Path, help="CSV or Parquet")
    parser.add_argument("--task", default="retail_repeat", help="default retail_repeat")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="settings of the task, as in `veilsum simulate`")
    options = parser.parse_args(argv)
    from experiments.launch import compose_and_run

    judged: list[int] = []
    # The path goes around Hydra's grammar, in which commas and brackets have a meaning.
    code = compose_and_run(
        "veilsum validate-data", [f"task={options.task}", *options.overrides],
        lambda config: judged.append(
            _validate(config.task, options.file, options.overrides)))
    return code or max(judged)


def _validate(task: TaskConfig, path: Path, overrides: list[str]) -> int:
    from dataclasses import replace

    from rich.console import Console
    from rich.markup import escape

    from learning.table_checks import check_file

    console = Console()
    task = replace(task, path=str(path))
    found, table = check_file(task)
    errors = sum(finding.severity == "error" for finding in found)
    if found:
        console.print(_findings_table(found, path))
    if errors:
        console.print(f"[bold red]{path} cannot be used: {errors} kinds of errors.")
        return 2
    assert table is not None
    _summarise(console, task, table)
    typed = shlex.join([f"task.path={path}", *overrides])
    console.print(f"[green]Usable:[/] veilsum simulate {escape(typed)}", highlight=False)
    return 0


def _findings_table(found: list[Finding], path: Path) -> object:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=f"{path.name}: findings", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("", "column", "rows", "what", "cure"):
        grid.add_column(heading, overflow="fold")
    for finding in found:
        rows = ", ".join(map(str, finding.rows))
        more = finding.count - len(finding.rows)
        colour = "red" if finding.severity == "error" else "yellow"
        grid.add_row(f"[{colour}]{finding.severity}", finding.column,
                     rows + (f" and {more:,} more" if more > 0 else ""),
                     escape(finding.text), escape(finding.cure))
    return grid


def _summarise(console: object, task: TaskConfig, table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    from learning.tables import canonical, prepare_task

    assert isinstance(console, Console)
    rows = canonical(table)
    task = prepare_task(task)
    grid = Grid(title="Partners", title_justify="left")
    for heading in ("partner", "customers", "purchases"):
        grid.add_column(heading, justify="right" if heading != "partner" else "left")
    for (name,), part in sorted(rows.partition_by("partner", as_dict=True).items()):
        grid.add_row(str(name), f"{part['customer'].n_unique():,}", f"{len(part):,}")
    console.print(grid)
    console.print(
        f"Training snapshots {', '.join(task.train_snapshots)}; validation "
        f"{task.validation_snapshot}; test {task.test_snapshot}. "
        f"{len(task.categories)} categories.",
        highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
