"""A federation of the benchmark's size: made-up customers, a model of 1.66 million parameters.

The numbers that customers hold do not matter for time, so they are drawn; that many customers,
examples and parameters is what a partner of the bundled data set has, with the model that
published comparisons use (a CNN of 1,663,370 parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from conf.schema import (
    Config,
    EncryptionConfig,
    FederationConfig,
    ModelConfig,
    PrivacyConfig,
    StrategyConfig,
    TaskConfig,
)
from learning.customers import CustomerParts, Customers, InputShape, PartnerData
from learning.losses import CrossEntropy, Loss
from learning.metrics import Metric
from learning.retail_repeat import RetailRepeat

CLIENTS = 8
CUSTOMERS, EXAMPLES = 330, 16
"""Of each client: as many as the six partners of the bundled data train on, on average."""
FEATURES, HIDDEN = 404, 4096
"""A network with one hidden layer: 4096 (404 + 2) + 1 = 1,662,977 parameters."""


class Workload:
    """Stands in for a task: what of it a round of training uses."""

    name = "retail_repeat"
    shape = InputShape(1, FEATURES)
    loss: Loss = CrossEntropy()
    metric: Metric = RetailRepeat.metric
    weight_decay: Mapping[str, float] = {}
    naive_rule = "none"
    feature_names = ()

    def __init__(self, config: TaskConfig, seed: int, history: bool = False) -> None:
        del config, seed, history

    def load(self, path: Path, site: str | None = None) -> PartnerData:
        """The file holds a client's number."""
        random = np.random.default_rng(int(path.read_text()))
        train, validation = (_customers(random) for _ in range(2))
        return PartnerData(*map(CustomerParts.of, (train, *[validation] * 3)))


def _customers(random: np.random.Generator) -> Customers:
    features = random.uniform(-1, 1, (CUSTOMERS, EXAMPLES, FEATURES)).astype(np.float32)
    targets = (random.random((CUSTOMERS, EXAMPLES, 1)) < 0.3).astype(np.float32)
    return Customers(features, targets, np.ones((CUSTOMERS, EXAMPLES), np.bool_),
                     np.zeros_like(targets))


def configuration(suite: str, bits: int, rounds: int, folder: Path) -> Config:
    """Of one suite's federation; its clients' files are made in ``folder``."""
    names = [f"client_{number}" for number in range(CLIENTS)]
    for number, name in enumerate(names):
        (folder / name).write_text(str(number))
    return Config(
        model=ModelConfig("mlp", HIDDEN),
        privacy=PrivacyConfig("noise_shares", epsilon=8.0, clip_norm=1.0),
        encryption=EncryptionConfig(suite, bits),
        strategy=StrategyConfig(rounds=rounds),
        federation=FederationConfig(
            partners=names, customers=dict.fromkeys(names, CUSTOMERS),
            sites={name: str(folder / name) for name in names}),
    ).validate()
