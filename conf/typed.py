"""Overrides as a person types them: quoted for Hydra's grammar, then for the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_PLAIN = re.compile(r"(?:[A-Za-z_]|\.{0,2}/)[A-Za-z0-9_./-]*")
_WORDS = ("false", "inf", "nan", "no", "null", "off", "on", "true", "yes")
"""No text without quotes, to Hydra or to YAML."""


def value(text: str) -> str:
    """``text`` as one value of an override: quoted where Hydra would take a part of it for grammar,
    a number or a reference."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # A backslash is itself, but before "${" (a reference, to OmegaConf) and before a quote.
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    quoted = re.sub(r'(\\*)"', r'\1\1\"', literal)
    at_the_end = quoted[len(quoted.rstrip("\\")):]
    return f'"{quoted}{at_the_end}"'


def validate_data(path: Path | str, task: str = "", site: str | None = None) -> str:
    """The command, to paste into a shell, that shows all that is wrong with a table."""
    place = str(path) if not str(path).startswith("-") else f"./{path}"
    return shlex.join(["veilsum", "validate-data", place, *([f"task={task}"] if task else []),
                       *(["--site", site] if site else [])])


def listed(key: str, names: Sequence[str], more: str = "") -> str:
    """``key=[A,B]``, as one word of the shell; ``more`` stands after the names."""
    return shlex.quote(f"{key}=[{','.join(map(value, names))}{more}]")
