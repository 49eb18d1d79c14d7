"""The end of a run: the model or its sealed bytes to MLflow; then comparison, result, figures."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from conf.schema import Config
from learning.registry import make_task, with_start_head
from learning.results import Comparison, RunResult, metric_label
from server.figures import epsilon_over_rounds, gain_per_partner, learning_curve
from server.recording import Recording
from server.rescue import rescued
from server.tracking import TrackingFailed
from server.tracking_names import registered_name, result_metrics
from strategies.agreement import Agreement
from strategies.global_model import GlobalModel, RevealedModel

Vector = NDArray[np.float64]
Reader = Callable[[bytes], Vector]
"""Opens a sealed model. No operator has one: only a simulation, which is every party at once."""


def record_model(work: Recording) -> None:
    """The final model, before its test: training is spent, and a test that fails must not cost
    it. Raises TrackingFailed, which says where the model is kept instead."""
    try:
        _record_model(work)
    except TrackingFailed as failed:
        raise TrackingFailed(f"{failed}. {rescued(work)}") from failed


def _record_model(work: Recording) -> None:
    if isinstance(work.model, RevealedModel):
        work.progress.stage("recording the model")
        example = np.zeros((1, 1, make_task(work.config).shape.size), np.float32)
        work.tracker.record_model(with_start_head(work.config, work.model.server.final), example,
                                  registered_name(work.config))
    else:
        work.progress.stage("recording the sealed model")
        sealed = work.model.outgoing("test")
        assert isinstance(sealed, bytes)
        work.tracker.record_sealed(sealed)


def finish(work: Recording, released: dict[str, float], reader: Reader | None) -> RunResult:
    """Compare, record, return. Where the model is sealed, the comparison needs ``reader``. Raises
    TrackingFailed, which says where the results are kept instead."""
    final = _final(work.model, reader)
    comparisons, lines = _compare(work, final)
    result = _result(work, comparisons, released, time.perf_counter() - work.began)
    metrics, figures = result_metrics(result) | lines, _figures(work, comparisons, lines)
    work.progress.stage("recording results and figures")
    try:
        work.tracker.finish(metrics, figures)
    except TrackingFailed as failed:
        raise TrackingFailed(f"{failed}. {rescued(work, metrics)}") from failed
    return result


def _final(model: GlobalModel, reader: Reader | None) -> Vector | None:
    sent = model.outgoing("test")
    if isinstance(sent, bytes):
        return reader(sent) if reader else None
    return sent


def _compare(work: Recording, final: Vector | None
             ) -> tuple[tuple[Comparison, ...], dict[str, float]]:
    """(rows, the oracle's reference values on validation)."""
    if work.oracle is None:
        return (), {}
    work.progress.stage("training each partner alone and all pooled, for comparison")
    local, pooled = work.oracle.fit_baselines()
    lines = work.oracle.validate_naive() | work.oracle.validate_baselines(local, pooled)
    if final is None:
        return (), lines
    models = work.oracle.models(final, work.config.strategy.rounds, final=True)
    if not isinstance(work.model, RevealedModel):
        lines |= work.oracle.validate(models)
    work.progress.stage("comparing on the test period, with bootstrap intervals")
    return work.oracle.compare(models, local, pooled), lines


def _result(work: Recording, comparisons: tuple[Comparison, ...], released: dict[str, float],
            seconds: float) -> RunResult:
    config, agreement = work.config, work.agreement
    rounds, task = config.strategy.rounds, make_task(config)
    return RunResult(
        metric=task.metric.name,
        comparisons=comparisons,
        released=released,
        privacy=config.privacy.name,
        epsilon=_worst(agreement, rounds, leaked=False),
        epsilon_if_key_leaks=_worst(agreement, rounds, leaked=True),
        delta=config.privacy.delta,
        encryption=config.encryption.name,
        opening=config.encryption.opening,
        warning=work.warning,
        rounds=rounds,
        parameters=work.parameters,
        upload_bytes_per_parameter=work.upload_bytes / work.parameters,
        seconds=seconds,
        mlflow_run_id=work.tracker.run_id,
        tracking_uri=work.tracker.uri,
        unit=task.metric.unit,
        higher_is_better=task.metric.higher_is_better,
        naive_rule=task.naive_rule,
    )


def _worst(agreement: Agreement, rounds: int, *, leaked: bool) -> float:
    """Training and test touch disjoint customers: the larger epsilon holds for everyone."""
    plans = ((agreement.training, rounds), (agreement.test, 1))
    return max(plan.epsilon_if_key_leaks(n) if leaked else plan.epsilon(n) for plan, n in plans)


def _figures(work: Recording, comparisons: tuple[Comparison, ...],
             lines: dict[str, float]) -> dict[str, Figure]:
    config: Config = work.config
    rounds = list(range(1, len(work.history) + 1))
    metric = make_task(config).metric
    name, label = metric.name, metric_label(metric.name, metric.unit)
    figures = {
        "learning_curve": learning_curve(
            rounds, work.column(f"val/{name}") or [], work.column(f"oracle/val/{name}"),
            lines.get(f"oracle/val/{name}_naive"), lines.get(f"oracle/val/{name}_local"),
            lines.get(f"oracle/val/{name}_pooled"), metric=label,
            errors=work.column(f"val/{name}_error"),
            as_released=work.column(f"oracle/val/{name}_as_released"),
            behind=config.encryption.opening == "sealed"),
        "epsilon_over_rounds": epsilon_over_rounds(
            rounds, work.column("privacy/epsilon") or [],
            work.column("privacy/epsilon_if_key_leaks") or [],
            config.privacy.epsilon, delta=config.privacy.delta),
    }
    if comparisons:
        figures["gain_per_partner"] = gain_per_partner(comparisons, metric=label)
    return figures
