"""What ``flwr run`` sends to every site: the packages and their YAML, nothing else."""

from __future__ import annotations

import io
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "server", "strategies", "encryption", "keyholder", "privacy", "learning",
            "conf")
STRAY = (
    "federation.key", "mlflow.db", "events.csv", "settings.json", "notes.toml", "setup_site.py",
    "client/site.json", "keyholder/shared.key", "keyholder/node.pem", "learning/events.parquet",
    "privacy/ledger.db", "server/state.jsonl", "conf/secret.toml", "conf/README.md",
    "tests/client/helper.py", "experiments/simulate.py", "data/customers.json",
)
_FLOWERS_OWN = {"pyproject.toml", ".info/CONTENT"}


def _sources(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for package in PACKAGES
            for pattern in ("*.py", "*.yaml") for path in (root / package).rglob(pattern)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as they are, between files that a working folder collects."""
    root = tmp_path_factory.mktemp("bundle") / "veilsum"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    for name in STRAY:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("# private\n")
    return root


# Flower names a pattern style that pathspec 1.0 renamed.
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_the_bundle_holds_the_packages_and_their_yaml_and_nothing_else(checkout: Path) -> None:
    bundle = build_fab_from_disk(checkout)
    assert len(bundle) < 2_000_000
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        assert set(archive.namelist()) == _sources(checkout) | _FLOWERS_OWN
        flower = tomllib.loads(archive.read("pyproject.toml").decode())["tool"]["flwr"]
    assert flower["app"]["components"] == {
        "serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert "config" in flower["app"]["config"], "flwr run refuses overrides of unknown keys"


def test_every_package_of_the_bundle_has_sources() -> None:
    assert {name.split("/")[0] for name in _sources(ROOT)} == set(PACKAGES)
