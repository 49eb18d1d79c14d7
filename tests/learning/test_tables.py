"""Every defect of a table is named by row and column, with the override or edit that cures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from conf.schema import Config, FederationConfig, InvalidConfig, TaskConfig
from experiments.validate_data import main
from learning.retail_repeat import RetailRepeat
from learning.site_table import scan_partner
from learning.table_checks import check_file
from learning.tables import (
    Finding,
    TableError,
    canonical,
    prepare_task,
    read_table,
    with_calendar,
)


def found(task: TaskConfig, severity: str = "error") -> list[Finding]:
    return [finding for finding in check_file(task)[0] if finding.severity == severity]


def edit(table: Path, line: int, change: Callable[[list[str]], list[str]]) -> None:
    """Rewrite one line as a text editor counts it."""
    lines = table.read_text().splitlines()
    lines[line - 1] = ",".join(change(lines[line - 1].split(",")))
    table.write_text("\n".join(lines) + "\n")


def put(column: int, value: str) -> Callable[[list[str]], list[str]]:
    return lambda cells: [value if place == column else cell for place, cell in enumerate(cells)]


def plain(table: Path) -> None:
    """Only lines without quotes, so that cells split at commas."""
    table.write_text("\n".join(line for line in table.read_text().splitlines()
                               if '"' not in line) + "\n")


def test_a_good_table_has_no_errors(task: TaskConfig) -> None:
    assert found(task) == []


@pytest.mark.parametrize(("place", "value", "column", "text"), [
    (0, "", "partner", "is empty"),
    (1, "nan", "customer", "is empty"),
    (2, "26.03.2024", "time", "cannot read '26.03.2024'"),
    (2, "2024-02-30", "time", "cannot read"),
    (2, "", "time", "is empty"),
    (3, "NULL", "category", "is empty"),
    (4, "NaN", "quantity", "not a number"),
    (4, "two", "quantity", "cannot read 'two'"),
    (4, "1e999", "quantity", "cannot read '1e999'"),
    (5, "", "value", "is empty"),
])
def test_bad_cells(task: TaskConfig, table: Path, place: int, value: str, column: str,
                   text: str) -> None:
    plain(table)
    edit(table, 12, put(place, value))
    (finding,) = found(task)
    assert (finding.column, finding.rows, finding.count) == (column, (12,), 1)
    assert text in finding.text and finding.cure
    with pytest.raises(TableError, match=f"column {column}, row 12") as caught:
        RetailRepeat(task, 0).split_by_partner(table.parent / "events")
    assert caught.value.key == "task.path"


@pytest.mark.parametrize("quantity", ["0", "-2"])
def test_returns_are_left_out_with_a_warning(task: TaskConfig, table: Path, quantity: str) -> None:
    plain(table)
    edit(table, 7, put(4, quantity))
    assert found(task) == []
    (finding,) = [item for item in found(task, "warning") if item.column == "quantity"]
    assert finding.rows == (7,)


def test_duplicates(task: TaskConfig, table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[4], lines[5]]) + "\n")
    (finding,) = found(task)
    assert finding.rows == (len(lines) + 1, len(lines) + 2) and "repeats" in finding.text


def test_many_rows_are_counted_not_listed(task: TaskConfig, table: Path) -> None:
    plain(table)
    for line in range(2, 12):
        edit(table, line, put(1, ""))
    (finding,) = found(task)
    assert finding.rows == (2, 3, 4, 5, 6) and finding.count == 10 and "5 more" in str(finding)


@pytest.mark.parametrize("column", ["partner", "customer", "time", "category"])
def test_missing_columns(task: TaskConfig, table: Path, column: str) -> None:
    pl.read_csv(table).rename({column: "other"}).write_csv(table)
    (finding,) = found(task)
    assert finding.column == column and "missing" in finding.text and "other" in finding.cure


def test_partners_must_have_customers_in_the_calendar(task: TaskConfig, table: Path) -> None:
    with table.open("a") as file:
        file.write("tiny,c0,2024-07-01,MILK,1,1\nold,c0,2020-07-01,MILK,1,1\n")
    settled = with_calendar(task, date(2024, 10, 26))
    tiny, old = sorted(found(settled), key=lambda item: item.text, reverse=True)
    assert "'tiny' has only 1 customers" in tiny.text and "'old' has no purchases" in old.text
    assert any(item.column == "time" for item in found(settled, "warning"))


@pytest.mark.parametrize("name", ["retail_repeat", "retail_cross"])
@pytest.mark.parametrize("day", ["2204-01-01", "1970-01-01"])
def test_a_date_far_from_the_others_is_named_by_row_alone(task: TaskConfig, table: Path, day: str,
                                                          name: str) -> None:
    plain(table)
    edit(table, 9, put(2, f"{day} 10:00"))
    (finding,) = found(replace(task, name=name))
    assert finding.rows == (9,) and f"{day} lies more than 732 days" in finding.text
    with pytest.raises(TableError, match="column time, row 9"):
        RetailRepeat(task, 0).split_by_partner(table.parent / "events")


def test_one_partner_is_no_federation(task: TaskConfig, table: Path) -> None:
    pl.read_csv(table).filter(pl.col("partner") == "west").write_csv(table)
    (error,) = [item for item in found(task) if "only one partner" in item.text]
    two = Config(federation=FederationConfig(partners=["a", "b"], customers={"a": 9, "b": 9}))
    assert two.validate().privacy.name == "noise_shares" and "at least 2," in error.cure


def test_categories_errors_say_what_to_type(task: TaskConfig) -> None:
    (finding,) = found(replace(task, categories=["NOTHING"]))
    assert finding.key == "task.categories"
    assert "'task.categories=[" in finding.cure and "task.top_categories=4" in finding.cure
    chosen = prepare_task(replace(task, categories=["NOTHING"], top_categories=2))
    assert len(chosen.categories) == 2 and chosen.top_categories == 0
    assert prepare_task(chosen) == chosen
    with pytest.raises(InvalidConfig, match="own tables"):
        prepare_task(TaskConfig(top_categories=3))


def test_a_short_table_says_how_long_it_must_be(task: TaskConfig, table: Path) -> None:
    pl.read_csv(table).filter(pl.col("time") < "2024-03-01").write_csv(table)
    (finding,) = [item for item in found(task) if item.column == "time"]
    assert "126 are needed" in finding.cure and "task.history_days" in finding.cure
    late = replace(task, train_snapshots=["2024-01-15"], validation_snapshot="2025-02-01",
                   test_snapshot="2025-03-01")
    assert {item.key for item in found(late) if item.column == "time"} == {
        "task.train_snapshots", "task.test_snapshot"}


def test_calendar_counts_back_from_the_last_day() -> None:
    config = with_calendar(TaskConfig(), date(2024, 12, 31), date(2024, 8, 1))
    assert (config.test_snapshot, config.validation_snapshot) == ("2024-12-18", "2024-12-04")
    assert config.train_snapshots == ["2024-11-06", "2024-11-20"]
    assert len(with_calendar(TaskConfig(), date(2024, 12, 31)).train_snapshots) == 9
    kept = replace(TaskConfig(), test_snapshot="2024-11-01")
    assert with_calendar(kept, date(2024, 12, 31)).validation_snapshot == "2024-10-18"


@pytest.mark.parametrize("content", [b"", b"\n", b"PAR1 broken", b"\xff\xfe\x00a,b\n1,2\n"])
def test_files_that_are_no_table(task: TaskConfig, table: Path, content: bytes) -> None:
    table.write_bytes(content)
    assert found(task)
    with pytest.raises(InvalidConfig):
        RetailRepeat(task, 0)


def test_a_file_that_shows_what_it_is_is_told_so(task: TaskConfig, table: Path) -> None:
    text = table.read_text()

    def told(path: Path) -> str:
        return str(*found(replace(task, path=str(path))))

    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        table.write_text(text, encoding=encoding)
        assert "UTF-16, not in UTF-8; save it" in told(table)
    table.write_text(text, encoding="utf-8-sig")
    assert not found(task)
    named = table.rename(table.with_suffix(".Parquet"))
    assert "not Parquet; write it anew" in told(named)
    assert "a folder; name one file; only task=utility_load" in told(table.parent)
    with pytest.raises(InvalidConfig, match="is no file: name one table"):
        settled = with_calendar(replace(task, path=str(table.parent)), date(2024, 10, 26))
        RetailRepeat(settled, 0).split_by_partner(table.parent / "events")
    table.write_text("partner,customer,time,load_wh\nnorth,h,2024-01-01 00:00,20\n")
    assert "for readings of meters give task=utility_load" in told(table)


@pytest.mark.parametrize("form", ["parquet", "semicolon", "iso", "zone", "dates"])
def test_other_spellings_of_the_same_table(
    task: TaskConfig, table: Path, tmp_path: Path, form: str
) -> None:
    frame = pl.read_csv(table, infer_schema_length=None)
    times = frame["time"].str.to_datetime("%Y-%m-%d %H:%M")
    other = tmp_path / f"other-{form}"
    if form == "parquet":
        frame.with_columns(times.dt.replace_time_zone("UTC")).write_parquet(other)
    elif form == "semicolon":
        frame.rename({"time": " Time "}).write_csv(other, separator=";")
    else:
        text = {"iso": "%Y-%m-%dT%H:%M:%S", "zone": "%Y-%m-%dT%H:%M:%S+02:00",
                "dates": "%Y-%m-%d"}[form]
        frame = frame.with_columns(times.dt.strftime(text)).unique(maintain_order=True)
        frame.write_csv(other)
    expected = RetailRepeat(task, 0)
    same = RetailRepeat(replace(task, path=str(other)), 0)
    first, second = (made.load(made.split_by_partner(tmp_path / name)["west"])
                     for made, name in ((expected, "a"), (same, "b")))
    assert (first.train.whole().features == second.train.whole().features).all()
    assert (first.test.whole().targets == second.test.whole().targets).all()


def test_a_site_holds_one_partner(task: TaskConfig, table: Path, tmp_path: Path) -> None:
    own = tmp_path / "harbour.csv"
    pl.read_csv(table).filter(pl.col("partner") == "west").drop("partner").write_csv(own)
    assert scan_partner(own)[0] == "harbour"
    with pytest.raises(TableError, match="3 partners"):
        scan_partner(table)
    with pytest.raises(TableError, match="no such file"):
        scan_partner(tmp_path / "absent.parquet")


def test_a_site_knows_whose_it_is(task: TaskConfig, table: Path, tmp_path: Path) -> None:
    own = tmp_path / "harbour.csv"
    west = pl.read_csv(table).filter(pl.col("partner") == "west")
    west.drop("partner").write_csv(own)
    assert scan_partner(own, "west")[0] == "west"
    west.write_csv(own)
    for path in (own, RetailRepeat(task, 0).split_by_partner(tmp_path / "sites")["west"]):
        assert scan_partner(path, "west")[0] == "west"
        with pytest.raises(TableError, match="names 'west', and this is the site of 'east'"):
            scan_partner(path, "east")


@pytest.mark.parametrize(("change", "refused"), [
    (lambda frame: frame, ""),
    (lambda frame: frame.with_columns(pl.lit(-1.0).alias("quantity")).head(1), ""),
    (lambda frame: frame.with_columns(pl.lit(float("nan")).alias("value")), "not a number"),
    (lambda frame: frame.with_columns(pl.lit(float("inf")).alias("quantity")), "cannot read"),
    (lambda frame: frame.with_columns(pl.lit(None, pl.String).alias("category")), "is empty"),
    (lambda frame: pl.concat([frame, frame.tail(1).with_columns(
        pl.col("time").dt.offset_by("3y"))]), "lies more than 732 days"),
    (lambda frame: frame.with_columns(pl.lit("nan").alias("customer")), "is empty"),
    (lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) > 3).then(pl.lit("east")).otherwise("partner")
        .alias("partner")), "holds 2 partners"),
], ids=range(8))
def test_own_parquet_in_canonical_columns_is_checked_as_any_table(
    table: Path, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], refused: str
) -> None:
    west = canonical(read_table(table)).filter(pl.col("partner") == "west")
    path = tmp_path / "west.parquet"
    change(west).write_parquet(path)
    if refused:
        with pytest.raises(TableError, match=refused):
            scan_partner(path)
    else:
        rows = scan_partner(path)[1].collect()
        assert len(rows) == len(change(west).filter(pl.col("quantity") > 0))


def test_the_verb(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = "task.categories=[BREAD,MILK]"
    assert main([str(table), names]) == 0
    assert "Usable: veilsum simulate" in capsys.readouterr().out
    plain(table)
    edit(table, 5, put(2, "yesterday"))
    assert main([str(table), names]) == 2
    shown = capsys.readouterr().out
    assert "time" in shown and "5" in shown and "Traceback" not in shown
    with pytest.raises(SystemExit):
        main([])
    assert "required: FILE\n" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "quantity   optional" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["retail_repeat", "retail_cross"])
def test_the_file_of_one_site_can_be_validated(
    task: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pl.read_csv(table, infer_schema=False)
    name = rows["partner"][0]
    path = tmp_path / "purchases.csv"
    rows.filter(pl.col("partner") == name).drop("partner").write_csv(path)
    words = [str(path), "--site", name, f"task={task}"]
    words += ["task.top_categories=5"] if task == "retail_repeat" else []
    assert main(words) == 0
    assert f"Usable at the site of {name}" in capsys.readouterr().out
    rows.write_csv(path)
    assert main(words) == 2
    assert "partners" in capsys.readouterr().out
