"""Hourly readings as a table, and a partner's homes as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from learning import tables
from learning.load_features import HOURS, Home

READINGS: Mapping[str, pl.DataType] = {
    "partner": pl.String(), "customer": pl.String(), "time": pl.Datetime("us"),
    "load_kwh": pl.Float64(), "temperature_c": pl.Float64(),
}
"""Schema of canonical readings: at most one row per customer and hour, the energy of the hour
that begins at ``time`` (local clock, no zone); temperature null where nobody measured."""
MAX_LOAD_KWH = 1000.0
"""No home uses more in an hour; whatever a table holds is clipped to it."""

FAR_DAYS = 366
"""No home pauses for longer: a reading this far from the others has a wrong date, and days that
are counted from it would fill a home's history with nothing."""


def far_off(readings: pl.DataFrame) -> pl.Series:
    """Per row (partner, customer, time, which may be null): whether more than FAR_DAYS without
    a reading lie between it and most of the home's."""
    return tables.far_off(readings, ("partner", "customer"), FAR_DAYS)


def homes(readings: pl.DataFrame) -> Iterator[Home]:
    """One home a customer, in the order of their names."""
    frame = readings.select(
        "customer", pl.col("time").dt.date().cast(pl.Int32).cast(pl.Int64).alias("day"),
        pl.col("time").dt.hour().cast(pl.Int64).alias("hour"),
        pl.col("load_kwh").cast(pl.Float32), pl.col("temperature_c").cast(pl.Float32),
    ).sort("customer", "day", "hour")
    for (name,), part in frame.partition_by("customer", as_dict=True, maintain_order=True).items():
        day = part["day"].to_numpy()
        place = (day - day[0]) * HOURS + part["hour"].to_numpy()
        shape = (int(day[-1] - day[0] + 1), HOURS)
        grids = []
        for column in ("load_kwh", "temperature_c"):
            grid = np.full(shape, np.nan, np.float32)
            grid.reshape(-1)[place] = part[column].to_numpy()
            grids.append(grid)
        load = np.clip(grids[0], 0.0, MAX_LOAD_KWH)
        yield Home(str(name), int(day[0]), load, np.clip(grids[1], -60.0, 60.0))
