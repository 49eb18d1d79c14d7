"""The trust boundary holds in the imports: the operator's code cannot reach a secret key."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "server", "strategies", "encryption", "keyholder", "privacy", "learning",
            "conf", "experiments")


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()",
               "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_layers_hold() -> None:
    result = _lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 kept, 0 broken" in result.stdout


def test_the_check_catches_a_server_that_imports_a_key(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "keyholder" / "keys.py").touch()
    (tmp_path / "server" / "app.py").write_text("import keyholder.keys\n")
    result = _lint(tmp_path)
    assert result.returncode != 0, result.stdout
    assert "keyholder" in result.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_package_init_is_empty(package: str) -> None:
    """A re-export could smuggle a secret module past the layer check."""
    assert (ROOT / package / "__init__.py").read_text() == ""
