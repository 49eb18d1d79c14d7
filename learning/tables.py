from __future__ import annotations
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
import polars as pl
from conf.schema import InvalidConfig, TaskConfig
from learning.partner_file import partner_of
TRAIN_SNAPSHOTS = 6
def with_calendar(config: TaskConfig, last_day: date) -> TaskConfig:
    """Fill in the snapshots that ``config`` leaves empty, counted back from the table's last day:
    the test snapshot leaves exactly one horizon of days for its labels, the validation snapshot
    lies one horizon earlier, and TRAIN_SNAPSHOTS training snapshots each one horizon earlier."""
    step = timedelta(days=config.horizon_days)
    test = config.test_snapshot or (last_day + timedelta(days=1) - step).isoformat()
    validation = config.validation_snapshot or (date.fromisoformat(test) - step).isoformat()
    train = config.train_snapshots or [
        (date.fromisoformat(validation) - back * step).isoformat()
        for back in range(TRAIN_SNAPSHOTS, 0, -1)]
    return replace(config, test_snapshot=test, validation_snapshot=validation,
                   train_snapshots=train)
def scan_partner(path, config):
    return partner_of(path), pl.scan_parquet(path)
def digest(path, config): raise NotImplementedError
def partners(path): raise NotImplementedError
def read_checked(config): raise NotImplementedError
