"""What a message says to type is understood as what it means, by the shell, Hydra and OmegaConf."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from conf.typed import listed, validate_data, value

MARKS = "ab Zä1.,=[]{}()$\\'\"~*#:@!?-/&|;%\t"


def understood(word: str) -> object:
    (argument,) = shlex.split(word)
    parsed = OverridesParser.create().parse_override(argument).value()
    return OmegaConf.to_container(OmegaConf.create({"value": parsed}), resolve=True)["value"]


@pytest.mark.parametrize("text", [
    "purchases.csv", "Käufe März.csv", "[nord].csv", "a,b.csv", "a{b}.csv", "$tmp.csv", "o'neil",
    "d=2024.csv", 'x"y', "x\\", 'x\\"y', '\\\\"', "${a}", "\\${a}", "\\\\${a}\\", "null", "1",
    "007", ".1e5", "True", "NaN", "KÄSE", "~x", "a(b)", " a ", "sweep(1)", "C:\\x", "1:30", "-x",
])
def test_any_text_is_one_value(text: str) -> None:
    assert understood(shlex.quote(f"task.path={value(text)}")) == text


@given(st.lists(st.text(MARKS, min_size=1), min_size=1, max_size=3))
def test_a_list_is_what_it_names(names: list[str]) -> None:
    assert understood(listed("task.categories", names)) == names


def test_plain_names_stay_readable() -> None:
    assert value("../my-data/purchases_1.csv") == "../my-data/purchases_1.csv"
    assert listed("task.categories", ["MILK", "TEA, GREEN"], ",...") == (
        "'task.categories=[MILK,\"TEA, GREEN\",...]'")


@pytest.mark.parametrize(("path", "task", "site", "line"), [
    ("a.csv", "", None, "veilsum validate-data a.csv"),
    ("a b's.csv", "utility_load", "Nord & Co",
     "veilsum validate-data 'a b'\"'\"'s.csv' task=utility_load --site 'Nord & Co'"),
    ("-a.csv", "retail_cross", None, "veilsum validate-data ./-a.csv task=retail_cross"),
])
def test_the_command_that_shows_everything(path: str, task: str, site: str | None,
                                           line: str) -> None:
    assert validate_data(path, task, site) == line
