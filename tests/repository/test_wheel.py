"""What is shipped: the packages, their YAML and the map of trade areas; no tests, no keys."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"client", "server", "strategies", "encryption", "keyholder", "privacy", "learning",
            "conf", "experiments"}


def test_the_wheel_holds_packages_and_their_data_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
               "--disable-pip-version-check", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    shipped = [name for name in names if not name.parts[0].endswith(".dist-info")]
    assert {name.parts[0] for name in shipped} == PACKAGES
    assert {name.suffix for name in shipped} == {".py", ".yaml", ".csv"}
    wanted = {path.relative_to(ROOT) for package in PACKAGES
              for pattern in ("*.py", "*.yaml", "*.csv")
              for path in (ROOT / package).rglob(pattern)}
    assert set(shipped) == wanted
