"""Documents and tree say what is true of the code."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _tracked(pattern: str) -> list[Path]:
    found = [path for path in ROOT.rglob(pattern)
             if not any(part.startswith(".") or part in ("mlruns", "build") for part in
                        path.relative_to(ROOT).parts)]
    assert found
    return found


def _readme_command(name: str) -> str:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "readme_command.py",
                           ROOT / "README.md", name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_readme_has_both_commands() -> None:
    assert _readme_command("simulate") == "pip install -c constraints.txt -e . && veilsum simulate"
    assert _readme_command("tests") == "pip install -c constraints.txt -e '.[dev]' && pytest -n 2"


def test_every_dependency_is_pinned_within_its_range() -> None:
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
                if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name]), text


@pytest.mark.parametrize("path", _tracked("*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_outgrows_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("document", ["README.md", "SECURITY.md"])
def test_documents_link_only_to_files_that_exist(document: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / document).read_text())
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
