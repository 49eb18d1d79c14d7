"""The Flower ServerApp that runs at the operator: from one configuration to one recorded run."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from conf.compose import from_json
from conf.schema import Config, InvalidConfig
from encryption.shared_sum import Sums
from learning.registry import make_task, shared_start
from learning.results import Comparison, Estimate, RunResult
from server.checkpoint import Checkpoints, NoCheckpoints, checkpoints
from server.finish import Reader, finish, record_model
from server.oracle import Heads, Oracle
from server.progress import Progress
from server.recording import Recording
from server.released import ReleasedMetrics, noise_stds
from server.tracking import DatasetDescription, RunTracker
from server.tracking_names import KEPT_TAG, RUN_TAG
from server.trust import noise_warning, trust_statement
from strategies.agreement import Agreement
from strategies.cohort import Cohort, join
from strategies.fedavg import EncryptedFedAvg, Rules
from strategies.global_model import GlobalModel, RevealedModel, SealedModel
from strategies.opening import check_opener
from strategies.optimiser import ServerState

log = logging.getLogger("veilsum")
_RESULT = "veilsum.result"
_PROCESSES = "VEILSUM_PROCESSES"


@dataclass(frozen=True)
class Operator:
    """What the machine that runs the server provides, besides the run's configuration. ``reader``
    opens a sealed model, and ``heads`` reads the partners' heads, for the comparison at the end of
    a simulation; a deployment has neither.
    ``folder``: where an interrupted run is kept; a deployment names it in the run config's
    ``state-path``. ``anew``: whether a person said, by the run config's ``begin-anew``, that a run
    whose checkpoints are lost begins anew. ``processes``: how many share the addition of updates;
    None: what the environment's VEILSUM_PROCESSES says, or else as many as pay. ``deployed``:
    whether Flower started it at a real operator, who takes a deployment's configuration alone."""

    reader: Reader | None = None
    folder: Path | None = None
    processes: int | None = None
    heads: Heads | None = None
    deployed: bool = False
    anew: bool = False


def make_app(operator: Operator) -> ServerApp:
    made = ServerApp()

    @made.main()
    def main(grid: Grid, context: Context) -> None:
        """Run the federation of the run config's ``config``; leave the result in the context."""
        here = replace(
            operator, folder=_state_folder(context) or operator.folder,
            processes=_asked() if operator.processes is None else operator.processes,
            anew=_begin_anew(context))
        config = from_json(str(context.run_config["config"]))
        if operator.deployed and config.federation.name != "deployment":
            raise InvalidConfig("federation", "this server takes configurations of a deployment "
                                f"alone, got {config.federation.name!r}; make the configuration "
                                "with federation=deployment")
        with checkpoints(here.folder, config) as kept:
            result = run_federation(config, grid, here, kept)
            context.state[_RESULT] = ConfigRecord({"json": json.dumps(asdict(result))})
            kept.finished()

    return made


app = make_app(Operator(deployed=True))


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


def _state_folder(context: Context) -> Path | None:
    """None where the run config names none. A folder made on the way, or one that depends on where
    the server was started, would be another one after a restart, and the run would begin anew.
    Raises InvalidConfig."""
    text = str(context.run_config.get("state-path", ""))
    folder = Path(text)
    if text and not (folder.is_absolute() and folder.is_dir()):
        raise InvalidConfig("state-path", "must be the whole path, from /, of a folder that exists "
                            f"at the operator, got {text!r}; make one and keep it, because an "
                            "interrupted run goes on from what it holds")
    return folder if text else None


def _begin_anew(context: Context) -> bool:
    """Raises InvalidConfig."""
    value = context.run_config.get("begin-anew", False)
    if not isinstance(value, bool):
        raise InvalidConfig("begin-anew", f"must be true or false, got {value!r}")
    return value


def _asked() -> int | None:
    """How many processes this machine's operator asks for. Raises InvalidConfig."""
    text = os.environ.get(_PROCESSES)
    if text is not None and not (text.isdecimal() and 1 <= int(text) <= 64):
        raise InvalidConfig(_PROCESSES, f"must be a whole number from 1 to 64, got {text!r}; unset "
                            "it in the server's environment to use as many as pay")
    return None if text is None else int(text)


def run_federation(config: Config, grid: Grid, operator: Operator,
                   kept: Checkpoints | NoCheckpoints) -> RunResult:
    """Join, train, release the test, record; go on from where ``kept`` was interrupted. Raises
    InvalidConfig, TooFewUpdates, KeysDiffer, OpeningFailed; MLflow then shows the run as failed, or
    killed on Ctrl-C."""
    began = time.perf_counter()
    saved = kept.load()
    run = saved.run if saved else secrets.token_hex(16)
    agreement = Agreement.of(config)
    tags = trust_statement(config) | {RUN_TAG: run} | {
        f"privacy.{key}": str(value) for key, value in agreement.training.describe().items()}
    metric = make_task(config).metric
    dataset = _dataset(config)
    with (RunTracker.start(config, dataset=dataset, tags=tags,
                           continues=saved.history if saved else None,
                           memory=kept.memory, anew=operator.anew) as tracker,
          Progress(config.strategy.rounds, f"val/{metric.name}") as progress):
        progress.note(f"trust: {tags['trust']}")
        progress.note(agreement.describe_width(config.encryption.bits))
        warning = _noise_warning(config, agreement)
        if warning:
            progress.note(f"warning: {warning}")
            tracker.tag("warning", warning)
        for other in kept.others():
            progress.note(f"another run was interrupted here, and this one does not go on with it: "
                          f"{other}")
        work = Recording(config, agreement, tracker, progress,
                         Oracle.of(config, run, operator.heads), ReleasedMetrics(metric),
                         _start(config), warning, run, dataset.digest, kept,
                         began - (saved.seconds if saved else 0.0))
        if saved is not None:
            work.restore(saved)
            progress.note(_goes_on(work))
        progress.stage("opening MLflow's store")  # before anybody waits, or spends
        for lost in tracker.ready():
            progress.note(f"warning: {lost}")
        progress.stage("connecting partners")
        cohort = join(grid, agreement.partners, config.quorum, run,
                      agreement.parameters.fingerprint, config.strategy.timeout_s, progress.note)
        check_opener(cohort, config.opener)
        work.keep()
        if kept.memory:
            tracker.tag(KEPT_TAG, kept.memory)
        released = _train_and_test(work, cohort, grid, operator.processes)
        return finish(work, released, operator.reader)


def _goes_on(work: Recording) -> str:
    number, rounds = work.model.round, work.config.strategy.rounds
    done = "" if number < rounds else ": training is done, the test is left"
    return (f"goes on after round {number} of {rounds}{done}; to begin anew, which spends privacy "
            f"again, {work.kept.anew}")


def _start(config: Config) -> GlobalModel:
    if config.encryption.opening == "sealed":
        return SealedModel()
    return RevealedModel(ServerState.start(shared_start(config)), config.strategy)


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


def _train_and_test(work: Recording, cohort: Cohort, grid: Grid,
                    processes: int | None) -> dict[str, float]:
    """All rounds; the final model, recorded; then its test release."""
    config, agreement = work.config, work.agreement

    def strategy(kind: str, rounds: int) -> EncryptedFedAvg:
        rules = Rules(
            run=work.run, layout=agreement.layout(kind), values=agreement.leaving_size(kind),
            quorum=config.quorum, opener=config.opener, timeout_s=config.strategy.timeout_s)
        return EncryptedFedAvg(
            rules, cohort, work.model, lambda left: agreement.dequantise(kind, left),
            agreement.divisor, work.on_round,
            Sums(rules.layout, processes, rounds * len(agreement.partners)), work.kept)

    if work.model.round < config.strategy.rounds:
        work.progress.begin_rounds(work.model.round)
        strategy("train", config.strategy.rounds).start(grid, ArrayRecord(), config.strategy.rounds)
    record_model(work)
    work.progress.stage("testing on customers that never trained")
    report = strategy("test", 1).run_round(grid, work.model, config.strategy.rounds + 1, "test")
    return work.released.after_test(report.sums, noise_stds(agreement.test, len(report.answered)))
