"""Made-up readings for tests: homes with a daily shape, a habit and chance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from learning.load_readings import READINGS


def readings(partners: Sequence[str], homes: int = 10, days: int = 84,
             seed: int = 0) -> pl.DataFrame:
    """Canonical readings: ``homes`` of each partner."""
    random = np.random.default_rng(seed)
    parts = []
    for partner in partners:
        for number in range(homes):
            peak, level = random.integers(6, 22), random.uniform(0.3, 2)
            shape = 1 + np.exp(-((np.arange(24) - peak) / 3.0) ** 2)
            mood = 1 + 0.3 * random.normal(size=(days, 1))
            load = np.abs(level * shape * mood * random.gamma(8, 1 / 8, size=(days, 24)))
            hours = pl.datetime_range(datetime(2024, 1, 1), interval="1h", eager=True,
                                      end=datetime(2024, 1, 1) + timedelta(days=days))
            parts.append(pl.DataFrame({
                "partner": partner, "customer": f"{partner}-{number}", "time": hours[:days * 24],
                "load_kwh": load.ravel(), "temperature_c": None}, schema_overrides=READINGS))
    return pl.concat(parts).select(*READINGS)
