"""The Flower ServerApp that runs at the operator: from one configuration to one recorded run."""

from __future__ import annotations

import json
import logging
import secrets
import time
from dataclasses import asdict, dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from conf.compose import from_json
from conf.schema import Config
from learning.models import get_flat, set_flat
from learning.registry import make_model, make_task
from learning.results import Comparison, Estimate, RunResult, metric_label
from server.figures import epsilon_over_rounds, gain_per_partner, learning_curve
from server.oracle import Oracle
from server.progress import Progress
from server.released import ReleasedMetrics, noise_stds
from server.tracking import DatasetDescription, RunTracker, result_metrics
from server.tracking_names import registered_name, slug
from server.trust import noise_warning, trust_statement
from strategies.agreement import Agreement
from strategies.cohort import Cohort, join
from strategies.fedavg import EncryptedFedAvg, RoundReport, Rules
from strategies.optimiser import ServerState

log = logging.getLogger("veilsum")
app = ServerApp()
_RESULT = "veilsum.result"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the run config's ``config``; leave the result in the context."""
    result = run_federation(from_json(str(context.run_config["config"])), grid)
    context.state[_RESULT] = ConfigRecord({"json": json.dumps(asdict(result))})


def read_result(context: Context) -> RunResult:
    """The result that :func:`main` left in its context."""
    record = context.state[_RESULT]
    fields = json.loads(str(record["json"]))
    rows = tuple(
        Comparison(**{key: Estimate(**value) if isinstance(value, dict) else value
                      for key, value in row.items()})
        for row in fields.pop("comparisons")
    )
    return RunResult(comparisons=rows, **fields)


@dataclass
class _Run:
    """What the rounds leave behind for the end of the run."""

    config: Config
    agreement: Agreement
    tracker: RunTracker
    progress: Progress
    oracle: Oracle | None
    released: ReleasedMetrics
    history: list[dict[str, float]] = field(default_factory=list)
    upload_bytes: float = 0.0

    def on_round(self, report: RoundReport) -> None:
        """Log one round at its step: what is released, what it cost, what an oracle sees."""
        began = time.perf_counter()
        plan = self.agreement.training
        customers = self.config.federation.customers
        divisor = sum(customers[partner] for partner in report.answered)
        parameters = report.state.model.size
        metrics = {
            **self.released.after_round(
                report.sums, divisor, noise_stds(plan, len(report.answered))["metric"]),
            "privacy/epsilon": plan.epsilon(report.round),
            "privacy/epsilon_if_key_leaks": plan.epsilon_if_key_leaks(report.round),
            "encryption/upload_bytes_per_parameter": report.upload_bytes / parameters,
            "cohort/answered": float(len(report.answered)),
            "cohort/refused": float(len(report.refused)),
        }
        if self.oracle is not None:
            metrics |= self.oracle.validate(report.state.model)
        metrics |= {f"time/{name}_s": value for name, value in report.seconds.items()}
        metrics["time/evaluate_s"] = time.perf_counter() - began
        self.upload_bytes = report.upload_bytes
        self.history.append(metrics)
        self.tracker.log_round(report.round, metrics)
        for partner, reason in report.refused.items():
            self.tracker.tag(f"refused.{slug(partner)}.round_{report.round}", reason)
        self.progress.round(report.round, metrics)


def run_federation(config: Config, grid: Grid) -> RunResult:
    """Join, train, release the test, record. Raises InvalidConfig, TooFewUpdates, KeysDiffer,
    OpeningFailed; MLflow then shows the run as failed, or killed on Ctrl-C."""
    began = time.perf_counter()
    agreement = Agreement.of(config)
    tags = trust_statement(config) | {
        f"privacy.{key}": str(value) for key, value in agreement.training.describe().items()}
    metric = make_task(config).metric
    with (RunTracker.start(config, dataset=_dataset(config), tags=tags) as tracker,
          Progress(config.strategy.rounds, f"val/{metric.name}") as progress):
        progress.note(f"trust: {tags['trust']}")
        warning = _noise_warning(config, agreement)
        if warning:
            progress.note(f"warning: {warning}")
            tracker.tag("warning", warning)
        progress.stage("connecting partners")
        run = secrets.token_hex(16)
        cohort = join(grid, agreement.partners, config.quorum, run,
                      agreement.parameters.fingerprint, config.strategy.timeout_s)
        work = _Run(config, agreement, tracker, progress, Oracle.of(config),
                    ReleasedMetrics(metric))
        final, released = _train_and_test(work, cohort, run, grid)
        return _finish(work, final, released, began)


def _noise_warning(config: Config, agreement: Agreement) -> str:
    ratio = agreement.training.noise_to_signal(len(agreement.partners), config.expected_customers)
    return noise_warning(config, ratio)


def _dataset(config: Config) -> DatasetDescription:
    """A deployment's server has no table to describe, only what the partners agreed on."""
    task = make_task(config)
    if config.federation.sites:
        return DatasetDescription(**task.describe())
    return DatasetDescription(config.task.name, "the partners' sites", "",
                              tuple(config.federation.partners), task.feature_names)


def _train_and_test(
    work: _Run, cohort: Cohort, run: str, grid: Grid
) -> tuple[np.ndarray, dict[str, float]]:
    config = work.config

    def strategy(kind: str) -> EncryptedFedAvg:
        layout = work.agreement.layout(kind)
        rules = Rules(
            run=run, layout=layout,
            values=work.agreement.plan(kind).total_size, quorum=config.quorum,
            opener=config.opener, timeout_s=config.strategy.timeout_s)
        return EncryptedFedAvg(rules, cohort, config.strategy, work.agreement.plan(kind).dequantise,
                               work.agreement.divisor, work.on_round)

    start = ArrayRecord({"model": Array(get_flat(make_model(config)))})
    work.progress.begin_rounds()
    result = strategy("train").start(grid, start, config.strategy.rounds)
    final = result.arrays["model"].numpy()
    work.progress.stage("testing on customers that never trained")
    report = strategy("test").run_round(
        grid, ServerState.start(final), config.strategy.rounds + 1, "test")
    stds = noise_stds(work.agreement.test, len(report.answered))
    return final, work.released.after_test(report.sums, stds)


def _finish(
    work: _Run, final: np.ndarray, released: dict[str, float], began: float
) -> RunResult:
    config, agreement = work.config, work.agreement
    rounds = config.strategy.rounds
    task = make_task(config)
    comparisons: tuple[Comparison, ...] = ()
    lines: dict[str, float] = {}
    if work.oracle is not None:
        work.progress.stage("training each partner alone and all pooled, for comparison")
        local, pooled = work.oracle.fit_baselines()
        lines = work.oracle.validate_naive() | work.oracle.validate_baselines(local, pooled)
        work.progress.stage("comparing on the test period, with bootstrap intervals")
        comparisons = work.oracle.compare(final, local, pooled)
    result = RunResult(
        metric=task.metric.name,
        comparisons=comparisons,
        released=released,
        privacy=config.privacy.name,
        epsilon=max(agreement.training.epsilon(rounds), agreement.test.epsilon(1)),
        epsilon_if_key_leaks=max(agreement.training.epsilon_if_key_leaks(rounds),
                                 agreement.test.epsilon_if_key_leaks(1)),
        delta=config.privacy.delta,
        encryption=config.encryption.name,
        rounds=rounds,
        parameters=final.size,
        upload_bytes_per_parameter=work.upload_bytes / final.size,
        seconds=time.perf_counter() - began,
        mlflow_run_id=work.tracker.run_id,
        tracking_uri=config.tracking.uri,
        unit=task.metric.unit,
        higher_is_better=task.metric.higher_is_better,
        naive_rule=task.naive_rule,
        warning=_noise_warning(config, agreement),
    )
    work.progress.stage("recording the model and figures")
    model = make_model(config)
    set_flat(model, final)
    example = np.zeros((1, 1, task.shape.size), np.float32)
    work.tracker.finish(
        result_metrics(result) | lines, _figures(work, comparisons, lines), model, example,
        registered_name(config))
    return result


def _figures(
    work: _Run, comparisons: tuple[Comparison, ...], lines: dict[str, float]
) -> dict[str, object]:
    rounds = list(range(1, len(work.history) + 1))
    metric = make_task(work.config).metric
    name, label = metric.name, metric_label(metric.name, metric.unit)

    def column(name: str) -> list[float] | None:
        return [row[name] for row in work.history] if name in work.history[0] else None

    figures: dict[str, object] = {
        "learning_curve": learning_curve(
            rounds, column(f"val/{name}"), column(f"oracle/val/{name}"),
            lines.get(f"oracle/val/{name}_naive"), lines.get(f"oracle/val/{name}_local"),
            lines.get(f"oracle/val/{name}_pooled"), metric=label,
            errors=column(f"val/{name}_error")),
        "epsilon_over_rounds": epsilon_over_rounds(
            rounds, column("privacy/epsilon"), column("privacy/epsilon_if_key_leaks"),
            work.config.privacy.epsilon, delta=work.config.privacy.delta),
    }
    if comparisons:
        figures["gain_per_partner"] = gain_per_partner(comparisons, metric=label)
    return figures
