"""From YAML and overrides to a checked :class:`conf.schema.Config`, and through JSON back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.schema import Config, InvalidConfig

CONFIG_DIR = Path(__file__).resolve().parent
_MOST_CHARACTERS, _MOST_COMMAS = 1 << 20, 10_000  # a thousand partners; about a second
_DEPTH = 3  # the tree, its groups, and lists or tables of plain values in them
_OPERATORS_OWN = {"tracking": None, "strategy": ("timeout_s",),
                  "federation": ("folder", "ray_address", "sites", "workers")}
"""Group -> keys that no partner reads (None: all of them)."""


def from_hydra(composed: DictConfig) -> Config:
    """Type-check and validate what Hydra composed. Raises InvalidConfig."""
    try:
        merged = OmegaConf.merge(_schema(), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise InvalidConfig(key, _reason(key, error)) from None
    assert isinstance(config, Config)
    return config.validate()


def _schema() -> DictConfig:
    """The typed tree, writable: OmegaConf takes a frozen dataclass for a read-only node."""
    tree = OmegaConf.structured(Config)
    OmegaConf.set_readonly(tree, False)
    for group in tree:
        node = tree._get_node(group)
        if isinstance(node, DictConfig):
            OmegaConf.set_readonly(node, False)
    return tree


def _reason(key: str, error: Exception) -> str:
    """OmegaConf's, but for words that only it knows."""
    text = str(error).splitlines()[0]
    if "ListConfig" in text:
        return f"is a list: write '{key}=[A,B]', or '{key}=[A]' for one"
    if "to Dict[" in text:
        return f"is a table: write '+{key}.NAME=VALUE' for each entry"
    return text


def to_json(config: Config) -> str:
    """The one string that a Flower run config carries."""
    return json.dumps(asdict(config), sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Config:
    """Inverse of :func:`to_json` for bytes from another party. Raises InvalidConfig.

    Every value is taken as it stands. OmegaConf would put this machine's environment variables in
    the place of ``${oc.env:NAME}``, and double a text with each of a chain of references.
    """
    if len(text) > _MOST_CHARACTERS or text.count(",") > _MOST_COMMAS:
        raise InvalidConfig("config", "is longer than a configuration of a thousand partners")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidConfig("config", "is not JSON") from None
    if not isinstance(parsed, dict):
        raise InvalidConfig("config", "is not a JSON object")
    _check_plain(parsed, _DEPTH)
    return from_hydra(OmegaConf.create(parsed))


def agreed_digest(config_json: str) -> bytes:
    """SHA-256 (32 bytes) of what a run's parties answer to: everything in ``config_json``, which
    :func:`from_json` takes, but where the operator records and how long it waits. Those may change
    before an interrupted run goes on. The text is not filled up with defaults: two versions of
    this code find the same digest."""
    parsed = json.loads(config_json)
    for group, keys in _OPERATORS_OWN.items():
        values = parsed.pop(group, {})
        if keys is not None:
            parsed[group] = {key: value for key, value in values.items() if key not in keys}
    text = json.dumps(parsed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"veilsum configuration 1\0" + text.encode()).digest()


def _check_plain(value: object, depth: int) -> None:
    """Raises InvalidConfig for references, for what is no text, and below ``depth`` levels."""
    if isinstance(value, str):
        if "${" in value or value == "???":
            raise InvalidConfig("config", "a value refers to something else")
        if not value.isascii() and value != value.encode(errors="ignore").decode():
            raise InvalidConfig("config", "a value is not text")
    elif isinstance(value, dict | list):
        if not depth:
            raise InvalidConfig("config", "is nested deeper than any configuration")
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_plain(one, depth - 1)
