"""A sealed model, opened by a key holder: from the bytes the operator kept to a PyTorch module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from client.sealed_run import ModelContent, unpack_model
from conf.schema import ModelConfig
from encryption.types import Refused
from keyholder.keys import SharedKey
from keyholder.vault import Kind, Vault, read_header
from learning.customers import InputShape
from learning.heads import HeadMask
from learning.models import build_model, get_flat, set_flat


class UnusableModel(Refused):
    """The bytes are authentic, but no model that this version can use comes out."""


@dataclass(frozen=True)
class ExportedModel:
    """``rounds_done`` of ``rounds`` planned; equal: the final model. Where partners have heads,
    the module holds the public start values in their place."""

    module: nn.Module
    content: ModelContent
    rounds_done: int

    @property
    def rounds(self) -> int:
        return int(str(self.content.description["rounds"]))


def open_model(key: SharedKey, sealed: bytes) -> ExportedModel:
    """Raises SealBroken for what no holder of this key sealed as a model, UnusableModel for a
    model of another version of this code, or one that diverged."""
    header = read_header(sealed)
    if header.kind is not Kind.MODEL:
        raise UnusableModel("this is an optimiser's state, not a model")
    _, content = Vault(key, header.run).open(Kind.MODEL, header.round, sealed)
    opened = unpack_model(content)
    if not np.isfinite(opened.vector).all():
        raise UnusableModel("the model holds values that are not finite: the run diverged")
    return ExportedModel(_module(opened), opened, header.round - 1)


def _module(opened: ModelContent) -> nn.Module:
    try:
        model, shape = opened.description["model"], opened.description["shape"]
        assert isinstance(model, dict) and isinstance(shape, dict)
        config = ModelConfig(**model)
        module = build_model(config, InputShape(**shape), int(str(opened.description["seed"])))
        found = [[name, list(value.shape)] for name, value in module.named_parameters()]
        if found != opened.description["parameters"]:
            raise ValueError("other parameters")
        mask = HeadMask.of(module, config.head)
        set_flat(module, mask.whole(opened.vector, mask.head(get_flat(module))))
    except (KeyError, TypeError, ValueError, AssertionError):
        raise UnusableModel("another version of this software made the model; export it with "
                            "that version") from None
    return module
