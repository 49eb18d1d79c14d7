"""From YAML and overrides to a checked :class:`conf.schema.Config`, and through JSON back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.schema import Config, InvalidConfig

CONFIG_DIR = Path(__file__).resolve().parent


def from_hydra(composed: DictConfig) -> Config:
    """Type-check and validate what Hydra composed. Raises InvalidConfig."""
    try:
        merged = OmegaConf.merge(_schema(), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise InvalidConfig(key, _first_line(error)) from None
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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def to_json(config: Config) -> str:
    """The one string that a Flower run config carries."""
    return json.dumps(asdict(config), sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Config:
    """Inverse of :func:`to_json` for bytes from another party. Raises InvalidConfig."""
    try:
        parsed = json.loads(text)
    except ValueError:
        raise InvalidConfig("config", "is not JSON") from None
    if not isinstance(parsed, dict):
        raise InvalidConfig("config", "is not a JSON object")
    return from_hydra(OmegaConf.create(parsed))
