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
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise InvalidConfig(key, str(error).splitlines()[0]) from None
    assert isinstance(config, Config)
    return config.validate()


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
