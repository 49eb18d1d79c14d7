"""Hand-made wheels in place of the pinned ones, each small and with the defects of the real one."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from learning.sources import wheels

MakeWheel = Callable[[str, Mapping[str, bytes]], Path]


def write_wheel(folder: Path, package: str, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, under the pinned file name of ``package``."""
    pinned = wheels.WHEELS[package]
    folder.mkdir(parents=True, exist_ok=True)
    info = "-".join(pinned.file.split("-")[:2]) + ".dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {pinned.version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / pinned.file
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {key: text.encode() for key, text in meta.items()}).items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cold cache of this test alone."""
    monkeypatch.setenv("VEILSUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWheel:
    """Put a made wheel into the cache and pin it."""

    def make(package: str, files: Mapping[str, bytes]) -> Path:
        path = write_wheel(cache / "wheels", package, files)
        pin(monkeypatch, package, path)
        return path

    return make


def pin(monkeypatch: pytest.MonkeyPatch, package: str, path: Path) -> None:
    made = replace(wheels.WHEELS[package],
                   sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(wheels, "WHEELS", {**wheels.WHEELS, package: made})
