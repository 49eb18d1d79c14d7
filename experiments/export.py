"""``veilsum export``: a sealed model for those who hold the key, as a file that PyTorch loads."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.export import ExportedModel

_MOST_BYTES = 1 << 32


class ExportFailed(ValueError):
    """Says which file, and what to do."""


def export(sealed: Path, key: Path, out: Path) -> ExportedModel:
    """Open ``sealed`` with ``key`` and write ``out``: a dict that ``torch.load`` reads with
    ``weights_only=True``: ``state_dict``, and as plain values ``task``, ``model``, ``shape``,
    ``rounds_done``, ``rounds``. Whole or not at all; never over a file. Raises ExportFailed,
    KeyFileError."""
    from client.export import open_model
    from encryption.types import Refused
    from keyholder.keys import SharedKey

    if out.exists():
        raise ExportFailed(f"{out} exists; move it away, or name another file with --out")
    if not out.resolve().parent.is_dir():
        raise ExportFailed(f"there is no folder {out.resolve().parent}; create it first")
    content = _read(sealed)
    with contextlib.closing(SharedKey.load(key)) as loaded:
        try:
            opened = open_model(loaded, content)
        except Refused as error:
            raise ExportFailed(f"{sealed}: {error}. Use the key of that run's federation, and its "
                               "artifact sealed/model.veilsum as MLflow has it (files of a "
                               "checkpoint folder are not for export).") from None
    _write(out, _plain(opened))
    return opened


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ExportFailed(f"{path} is larger than any model; name a sealed model")
        return path.read_bytes()
    except OSError as error:
        raise ExportFailed(f"{path} cannot be read: {error.strerror}") from None


def _plain(opened: ExportedModel) -> dict[str, object]:
    about: Mapping[str, object] = opened.content.description
    return {"format": "veilsum model 1", "state_dict": opened.module.state_dict(),
            **{key: about[key] for key in ("task", "model", "shape", "rounds")},
            "rounds_done": opened.rounds_done}


def _write(out: Path, content: dict[str, object]) -> None:
    import torch

    descriptor, temporary = tempfile.mkstemp(dir=out.resolve().parent, prefix=".export-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(content, file)
        torch.load(temporary, weights_only=True)
        out.hardlink_to(temporary)  # fails where the file exists, unlike a rename
    except FileExistsError:
        raise ExportFailed(f"{out} exists; move it away, or name another file with --out"
                           ) from None
    except OSError as error:
        raise ExportFailed(f"{out} cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    from keyholder.keys import KeyFileError

    parser = argparse.ArgumentParser(
        prog="veilsum export",
        description="Open the model of a run with encryption.opening=sealed. Only a partner that "
        "holds the federation's key can.")
    parser.add_argument("sealed", type=Path, help="the run's artifact sealed/model.veilsum")
    parser.add_argument("--key", type=Path, required=True, help="the federation's key file")
    parser.add_argument("--out", type=Path, default=Path("model.pt"),
                        help="file to write (default: model.pt); never overwritten")
    arguments = parser.parse_args(argv)
    try:
        opened = export(arguments.sealed, arguments.key, arguments.out)
    except (ExportFailed, KeyFileError) as error:
        print(f"veilsum export: {error}", file=sys.stderr)
        return 2
    about = opened.content.description
    which = "the final model" if opened.rounds_done == opened.rounds else "the model"
    head = opened.content.description["model"]["head"]  # type: ignore[index]
    if head != "shared":
        which += f" without a head (model.head={head}: the public start values stand there)"
    print(f"{arguments.out}: {which} after {opened.rounds_done} of {opened.rounds} rounds, task "
          f"{about['task']}, {opened.content.vector.size:,} parameters\n"
          f"read it with torch.load({str(arguments.out)!r})[\"state_dict\"]; README.md, \"Using a "
          "model\", builds the module")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
