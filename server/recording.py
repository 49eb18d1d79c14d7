"""What a run writes down as it goes: each round at its step, and what its end needs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from conf.schema import Config, InvalidConfig
from server.checkpoint import Checkpoints, NoCheckpoints, Saved
from server.oracle import Oracle
from server.progress import Progress
from server.released import ReleasedMetrics, noise_stds
from server.tracking import RunTracker
from server.tracking_names import slug
from strategies.agreement import Agreement
from strategies.fedavg import RoundReport
from strategies.global_model import GlobalModel, RevealedModel


@dataclass
class Recording:
    """What the rounds leave behind for the end of the run."""

    config: Config
    agreement: Agreement
    tracker: RunTracker
    progress: Progress
    oracle: Oracle | None
    released: ReleasedMetrics
    model: GlobalModel
    warning: str
    run: str
    """Its name: partners have answered to it."""
    data: str
    """Digest of a simulation's table."""
    kept: Checkpoints | NoCheckpoints
    began: float
    """On the clock of time.perf_counter; earlier by what an interrupted run took before."""
    history: list[dict[str, float]] = field(default_factory=list)
    upload_bytes: float = 0.0

    def keep(self) -> None:
        """On disk when this returns: what the next round begins from."""
        self.kept.save(Saved(
            self.run, self.model.round, self.data, self.history, self.released.state(),
            self.upload_bytes, time.perf_counter() - self.began, self.model.packed()))

    def restore(self, saved: Saved) -> None:
        """Raises InvalidConfig where the data are not those that the run began with."""
        if saved.data != self.data:
            raise InvalidConfig(
                "task.path", "the data changed since this run was interrupted; bring them back, or "
                f"remove {self.kept.place} to begin anew, which spends privacy again")
        self.model = self.model.restored(saved.model)
        self.released.restore(saved.released)
        self.history, self.upload_bytes = saved.history, saved.upload_bytes

    @property
    def parameters(self) -> int:
        return self.agreement.training.region("update").size

    def on_round(self, report: RoundReport) -> None:
        """Log one round at its step: what is released, what it cost, what an oracle sees."""
        began = time.perf_counter()
        self.model = report.model
        metrics = {
            **self._released(report),
            "encryption/upload_bytes_per_parameter": report.upload_bytes / self.parameters,
            "encryption/download_bytes_per_parameter": report.download_bytes / self.parameters,
            "cohort/answered": float(len(report.answered)),
            "cohort/refused": float(len(report.refused)),
        }
        if self.oracle is not None and isinstance(report.model, RevealedModel):
            metrics |= self.oracle.validate(
                self.oracle.models(report.model.server.model, report.round))
        metrics |= {f"time/{name}_s": value for name, value in report.seconds.items()}
        metrics["time/evaluate_s"] = time.perf_counter() - began
        self.upload_bytes = report.upload_bytes
        self.history.append(metrics)
        self.keep()
        self.tracker.log_round(report.round, metrics)
        for partner, reason in report.refused.items():
            self.tracker.tag(f"refused.{slug(partner)}.round_{report.round}", reason)
        self.progress.round(report.round, metrics)

    def _released(self, report: RoundReport) -> dict[str, float]:
        """Of models up to that which the round began with: their statistics were summed by those
        who had that model, and are opened with the update that moves it."""
        plan = self.agreement.training
        divisor = sum(self.config.federation.customers[partner] for partner in report.answered)
        stds = noise_stds(plan, len(report.answered))
        return {
            **self.released.after_round(report.sums, divisor, stds["metric"]),
            "privacy/epsilon": plan.epsilon(report.round),
            "privacy/epsilon_if_key_leaks": plan.epsilon_if_key_leaks(report.round),
        }

    def column(self, name: str) -> list[float] | None:
        """A metric over the rounds, None where it was not computed."""
        return [row[name] for row in self.history] if name in self.history[0] else None
