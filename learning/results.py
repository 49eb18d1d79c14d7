"""What an evaluation says: one number with its interval, one row per partner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval (paired household bootstrap); NaN bounds: not computed."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """One line of the result: the same test examples scored four ways.

    ``partner`` is a partner's name, "all", or "held out" (customers that never trained).
    Gains say by how much the federated model is better than the other (above 0 is better,
    whichever way the metric points), paired over the same resampled customers.
    """

    partner: str
    customers: int
    naive: Estimate
    local: Estimate
    pooled: Estimate
    federated: Estimate
    gain_over_naive: Estimate
    gain_over_local: Estimate


@dataclass(frozen=True)
class RunResult:
    """What a finished run answers. ``released`` holds the metrics that a deployment's operator
    would see too (noised sums); everything in ``comparisons`` is a simulation's oracle. unit:
    of the metric, "" for a plain number."""

    metric: str
    comparisons: tuple[Comparison, ...]
    released: dict[str, float]
    privacy: str
    epsilon: float
    epsilon_if_key_leaks: float
    delta: float
    encryption: str
    rounds: int
    parameters: int
    upload_bytes_per_parameter: float
    seconds: float
    mlflow_run_id: str
    tracking_uri: str
    unit: str = ""
    higher_is_better: bool = True
    naive_rule: str = ""
    warning: str = ""
    """What the reader must know before believing the numbers; "" where there is nothing."""
    opening: str = "revealed"
    """Whether the operator saw the model ("sealed": it did not)."""

    @property
    def metric_label(self) -> str:
        """For a heading: "AUC", "MAE (kWh)"."""
        return metric_label(self.metric, self.unit)


def metric_label(name: str, unit: str) -> str:
    return name.upper() + (f" ({unit})" if unit else "")
