"""Made-up readings for tests (homes with a daily shape, a habit and chance), and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from conf.schema import TaskConfig
from learning.load_checks import check
from learning.load_readings import READINGS
from learning.load_table import hourly, read_load
from learning.tables import Finding

Rows = list[tuple[str, str]]
CONFIG = TaskConfig(name="utility_load")


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


def write(path: Path, rows: Rows, column: str = "load_kwh", partner: str | None = "north") -> Path:
    """rows: (time, load) of one home."""
    head = "customer,time," + column + (",partner" if partner else "")
    lines = [f"h1,{time},{load}" + (f",{partner}" if partner else "") for time, load in rows]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def every(minutes: int, count: int, value: str = "0.25",
          first: datetime = datetime(2024, 1, 1)) -> Rows:
    return [(f"{first + number * timedelta(minutes=minutes):%Y-%m-%d %H:%M}", value)
            for number in range(count)]


def hours(path: Path, **settings: str) -> pl.DataFrame:
    return hourly(read_load(path, replace(CONFIG, **settings)))


def findings(path: Path, **settings: str) -> dict[tuple[str, str], Finding]:
    found = check(replace(CONFIG, path=str(path), **settings)).findings
    return {(finding.severity, finding.column): finding for finding in found}


def quarters(frame: pl.DataFrame) -> pl.DataFrame:
    """The same energy in readings of 15 minutes."""
    return pl.concat([frame.with_columns(pl.col("time") + pl.duration(minutes=15 * part),
                                         pl.col("load_kwh") / 4) for part in range(4)])
