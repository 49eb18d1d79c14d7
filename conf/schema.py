"""The configuration of one federation run, as frozen dataclasses.

Hydra composes YAML into these classes; past this package only they travel, never a
``DictConfig``. Every impossible value is refused here, by the name a user would type on the
command line (:class:`InvalidConfig`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from zoneinfo import available_timezones


class InvalidConfig(ValueError):
    """A configuration value that cannot work. ``key`` is the override's name."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


MOST_BITS = 32
"""Of a value's width: it travels as a signed 32-bit word at most."""
MOST_CUSTOMERS = 4_000_000
"""Of one partner: sums of so many clipped rows are exact (``privacy.clipping``), and every plan has
room for them. A larger estimate is a slip, or made to overflow something."""


def _require(condition: bool, key: str, reason: str) -> None:
    if not condition:
        raise InvalidConfig(key, reason)


def _one_of(value: str, key: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, key, f"{value!r} is not one of {', '.join(choices)}")


def _positive(value: float, key: str) -> None:
    _require(math.isfinite(value) and value > 0, key, f"must be above 0, got {value}")


@dataclass(frozen=True)
class TaskConfig:
    """What is learned, from which table, over which public calendar.

    All values are public: every partner and the operator see them.
    """

    name: str = "retail_repeat"
    path: str | None = None
    """A table (CSV or Parquet) with a partner column; None means the bundled real data."""
    categories: list[str] = field(default_factory=list)
    """Public vocabulary; events of other categories count as visits only."""
    top_categories: int = 0
    """Own tables only: take this many most frequent categories and declare them public."""
    history_days: int = 84
    quiet_days: int = 28
    """A category is asked about only if the customer bought it in the history, but not in these
    last days of it. 0: every category of the history."""
    horizon_days: int = 14
    horizons: int = 1
    """So many horizons, one after the other, last validation and test each."""
    train_snapshots: list[str] = field(default_factory=list)
    """ISO dates at whose midnight a training example is cut: history before, label after."""
    validation_snapshot: str = ""
    test_snapshot: str = ""
    calendars: dict[str, str] = field(default_factory=dict)
    """retail_cross: partner -> first and last day of its purchases, 2000-11-01/2001-02-28; its
    snapshots are counted back from the last day. Empty: as the data has them."""
    holdout_fraction: float = 0.2
    """Share of customers kept out of training; a keyed hash of the customer decides."""
    holdout_partners: list[str] = field(default_factory=list)
    """Only these partners keep customers out of training; empty: all of them. For partners with
    a handful of customers, who need each for training."""
    validation_fraction: float = 0.125
    """Utilities only: share of each home's days that validates; before it lie training days."""
    test_fraction: float = 0.125
    """Utilities only: share of each home's days, its last ones, that test."""
    time_zone: str = ""
    """Utilities only: the clock of the homes, Europe/Paris say, for readings whose times have
    another offset from UTC; empty: times are that clock's already."""
    simulated_homes: int = 0
    """Utilities only: so many simulated homes of eight partners, like the real ones, instead of
    them."""
    newcomer_partner: str | None = None
    """Simulation only: this partner keeps just ``newcomer_customers`` training customers."""
    newcomer_customers: int = 0
    newcomer_days: int = 56
    """Utilities only: and just these last days of their training time."""

    def validate(self) -> None:
        _one_of(self.name, "task", ("retail_repeat", "retail_cross", "retail_demand",
                                     "utility_load"))
        _positive(self.history_days, "task.history_days")
        _positive(self.horizon_days, "task.horizon_days")
        _require(1 <= self.horizons <= 13, "task.horizons",
                 f"must lie in 1..13, got {self.horizons}")
        _require(self.top_categories >= 0, "task.top_categories", "must not be negative")
        _require(0 <= self.quiet_days < self.history_days, "task.quiet_days",
                 f"must lie between 0 and history_days - 1, got {self.quiet_days}")
        _require(0 < self.holdout_fraction < 1, "task.holdout_fraction",
                 f"must lie between 0 and 1, got {self.holdout_fraction}")
        if self.time_zone:
            _require(self.time_zone in available_timezones(), "task.time_zone",
                     f"{self.time_zone!r} is not a time zone such as Europe/Paris")
        _require(self.simulated_homes == 0 or self.simulated_homes >= 100, "task.simulated_homes",
                 f"eight partners need 100 at least, got {self.simulated_homes}")
        for key in ("simulated_homes", "time_zone"):
            _require(self.name == "utility_load" or not getattr(self, key), f"task.{key}",
                     "is for task=utility_load")
        _require(not self.simulated_homes or self.path is None, "task.simulated_homes",
                 "is for the homes that come with the task; drop it or task.path")
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            _require(0 < value < 0.5, f"task.{name}", f"must lie between 0 and .5, got {value}")
        _require(self.newcomer_customers >= 0, "task.newcomer_customers", "must not be negative")
        _require(self.newcomer_days >= 14, "task.newcomer_days",
                 f"two weeks (14) at least, got {self.newcomer_days}")
        twice = sorted(name for name, count in Counter(self.categories).items() if count > 1)
        _require(not twice, "task.categories", f"names a category twice: {', '.join(twice)}")

    def check_partners(self, partners: Sequence[str]) -> None:
        """Raises InvalidConfig where a setting names a partner that is not there: it would do
        nothing, without a word."""
        for key in ("holdout_partners", "calendars"):
            unknown = [name for name in getattr(self, key) if name not in partners]
            _require(not unknown, f"task.{key}", f"{', '.join(map(repr, unknown))} is none of the "
                     f"partners, which are {', '.join(partners)}")


@dataclass(frozen=True)
class ModelConfig:
    name: str = "linear"
    hidden: int = 8
    """mlp, tcn, dpgru: width. Small is right under differential privacy."""
    kernel: int = 2
    """tcn: steps that a convolution sees."""
    levels: int = 2
    """tcn: convolutions, one after the other; together they see kernel^levels steps."""
    head: str = "shared"
    """What of the model stays at each partner, fitted to its own customers and sent to nobody:
    "shared": nothing; "bias": the intercept; "last_layer": all of the last layer."""

    @property
    def reads_history(self) -> bool:
        """Whether it reads more of an example than the hand-made features of each output."""
        return self.name in ("tcn", "dpgru")

    def validate(self) -> None:
        _one_of(self.name, "model", ("linear", "mlp", "tcn", "dpgru"))
        _positive(self.kernel, "model.kernel")
        _require(self.kernel <= 64, "model.kernel", "at most 64")
        _require(1 <= self.levels <= 8, "model.levels", f"must lie in 1..8, got {self.levels}")
        _positive(self.hidden, "model.hidden")
        _require(self.hidden <= 4096, "model.hidden", "at most 4096")
        _one_of(self.head, "model.head", ("shared", "bias", "last_layer"))
        _require(self.name != "linear" or self.head != "last_layer", "model.head",
                 "a linear model is one layer: with last_layer nothing is left to share; use "
                 "model.head=bias or another model")


@dataclass(frozen=True)
class PrivacyConfig:
    """How customers are protected. The unit is one customer, neighbours differ by adding or
    removing one customer (all records of it)."""

    name: str = "noise_shares"
    epsilon: float = 3.0
    delta: float = 1e-5
    clip_norm: float = 0.5
    """L2 bound C on one customer's contribution to the update of one round."""
    colluders: int = 1
    """t: noise of this many partners may be missing from the protection of the others."""
    metrics_share: float = 0.1
    """Share of the privacy loss (in rho = 1/(2 sigma^2)) spent on the metrics that ride along."""
    contribution: str = "gradient"
    """"gradient": one clipped gradient a customer and round; "training": the clipped delta of a
    local training from the global model, customer by customer (DP-FedAvg)."""
    local_steps: int = 5
    local_learning_rate: float = 0.5
    sample_rate: float = 0.1
    """local_dp only: Poisson sampling rate of customers in a local DP-SGD step."""

    CHOICES: ClassVar[tuple[str, ...]] = ("noise_shares", "local_dp", "none")

    def validate(self) -> None:
        _one_of(self.name, "privacy", self.CHOICES)
        _positive(self.epsilon, "privacy.epsilon")
        _require(self.epsilon <= 100, "privacy.epsilon",
                 f"{self.epsilon} protects nobody; use privacy=none to say so openly")
        _require(0 < self.delta < 1e-2, "privacy.delta",
                 f"must lie between 0 and 0.01 (well below 1/customers), got {self.delta}")
        _positive(self.clip_norm, "privacy.clip_norm")
        _require(self.colluders >= 1, "privacy.colluders",
                 "at least 1: a partner can always subtract its own noise")
        _require(0 < self.metrics_share < 1, "privacy.metrics_share", "must lie between 0 and 1")
        _one_of(self.contribution, "privacy.contribution", ("gradient", "training"))
        _positive(self.local_steps, "privacy.local_steps")
        _require(self.local_steps <= 100_000, "privacy.local_steps", "at most 100000")
        _positive(self.local_learning_rate, "privacy.local_learning_rate")
        _require(0 < self.sample_rate <= 1, "privacy.sample_rate", "must lie in (0, 1]")


@dataclass(frozen=True)
class EncryptionConfig:
    name: str = "shared_key"
    bits: int = 16
    """Fewest bits of one quantised value. The plan takes more, up to 32, where the noisy sum of
    the largest partner's customers needs them."""
    opening: str = "revealed"
    """Who sees the model: "revealed": the operator too; "sealed": key holders alone."""
    feedback: bool = False
    """Each partner keeps what rounding and range left over of its update, and adds it to its next
    one: few bits cost nothing then, down to 4. Not with privacy=noise_shares."""

    CHOICES: ClassVar[tuple[str, ...]] = ("shared_key", "shared_key_rlwe", "plaintext")
    OPENINGS: ClassVar[tuple[str, ...]] = ("revealed", "sealed")

    def validate(self) -> None:
        _one_of(self.name, "encryption", self.CHOICES)
        _one_of(self.opening, "encryption.opening", self.OPENINGS)
        _require(self.opening == "revealed" or self.name != "plaintext", "encryption.opening",
                 "sealed hides nothing with encryption=plaintext: whoever adds the updates could "
                 "compute the model; use encryption=shared_key")
        _require(4 <= self.bits <= MOST_BITS, "encryption.bits",
                 f"must lie in 8..{MOST_BITS}, got {self.bits} "
                 "(from 4 with encryption.feedback=true)")
        _require(self.feedback or self.bits >= 8, "encryption.bits",
                 f"{self.bits} are too few without encryption.feedback=true")


@dataclass(frozen=True)
class StrategyConfig:
    name: str = "fedavg"
    rounds: int = 100
    quorum: int = 0
    """Fewest partners that must answer a round; 0 means all of them."""
    learning_rate: float = 0.3
    momentum: float = 0.9
    second_momentum: float = 0.99
    """fedadam only: decay of the second moment."""
    adaptivity: float = 1e-3
    """fedadam only: tau, the floor under the second moment's root."""
    proximal: float = 0.0
    """fedprox only: mu, the pull of a local training back to the global model."""
    head_learning_rate: float = 0.3
    """Of each partner's own head, with model.head; its other rates are the strategy's."""
    average_last: float = 0.5
    """The final model is the mean over this share of the last rounds (0: the last model)."""
    timeout_s: float = 600.0
    opener: str = ""
    """Partner that opens sums; empty: the first by name."""

    def validate(self) -> None:
        _one_of(self.name, "strategy", ("fedavg", "fedprox", "fedadam"))
        _positive(self.rounds, "strategy.rounds")
        _require(self.rounds <= 100_000, "strategy.rounds", "at most 100000")
        _require(self.quorum >= 0, "strategy.quorum", "must not be negative")
        _positive(self.learning_rate, "strategy.learning_rate")
        _positive(self.head_learning_rate, "strategy.head_learning_rate")
        _require(0 <= self.momentum < 1, "strategy.momentum", "must lie in [0, 1)")
        _require(0 <= self.average_last <= 1, "strategy.average_last", "must lie in [0, 1]")
        _require(0 <= self.second_momentum < 1, "strategy.second_momentum", "must lie in [0, 1)")
        _positive(self.adaptivity, "strategy.adaptivity")
        _require(math.isfinite(self.proximal) and self.proximal >= 0, "strategy.proximal",
                 f"must not be negative, got {self.proximal}")
        _positive(self.timeout_s, "strategy.timeout_s")


@dataclass(frozen=True)
class FederationConfig:
    name: str = "local"
    partners: list[str] = field(default_factory=list)
    """Names in the order of the partner map. A simulation fills them in from the table."""
    customers: dict[str, int] = field(default_factory=dict)
    """Public estimate of each partner's training customers; their sum is the fixed divisor of
    every opened sum. A simulation fills in its own counts, rounded to tens."""
    workers: int = 2
    """Simulation only: clients that run at the same time."""
    folder: str = ""
    """Simulation only: where it keeps its key, sites, their state and the server's checkpoints, so
    that the same command goes on after an interruption; empty: nowhere."""
    split_into: int = 0
    """Simulation only: divide the table's partners, by a hash of the customer, into this many;
    0 leaves them as they are."""
    ray_address: str = ""
    """ray only: address of a running Ray cluster; empty starts one on this machine."""
    sites: dict[str, str] = field(default_factory=dict)
    """Simulation only: partner -> file of its events; gives the simulation its oracle metrics."""

    def validate(self) -> None:
        _one_of(self.name, "federation", ("local", "ray", "deployment"))
        _positive(self.workers, "federation.workers")
        _require(0 <= self.split_into <= 10_000, "federation.split_into",
                 f"must lie in 0..10000, got {self.split_into}")


@dataclass(frozen=True)
class TrackingConfig:
    uri: str = "sqlite:///mlflow.db"
    experiment: str = "veilsum"
    run_name: str | None = None
    parent: str | None = None
    """MLflow id of the run that this one belongs to; a sweep fills it in."""

    def validate(self) -> None:
        _require(bool(self.uri), "tracking.uri", "must not be empty")


@dataclass(frozen=True)
class Config:
    """One federation run. ``seed`` reaches splits, model starts and the bootstrap, never noise
    or keys."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    encryption: EncryptionConfig = field(default_factory=EncryptionConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0

    def validate(self) -> Config:
        """Return self, or raise :class:`InvalidConfig` naming the first impossible key."""
        for group in (self.task, self.model, self.privacy, self.encryption, self.strategy,
                      self.federation, self.tracking):
            group.validate()
        _require(0 <= self.seed < 2**63, "seed", "must lie in 0..2^63 - 1")
        _require(not self.encryption.feedback or self.model.head == "shared",
                 "encryption.feedback", "does not go with model.head: what a partner keeps of its "
                 "own model is not rounded away; set one of them to its default")
        _require(not self.encryption.feedback or self.privacy.name != "noise_shares",
                 "encryption.feedback", "what is left over of a sum would speak of the same "
                 "customers a second time, which a noise share does not cover; use "
                 "privacy=local_dp, privacy=none or encryption.feedback=false")
        partners = self.federation.partners
        for name, count in self.federation.customers.items():
            _require(0 < count <= MOST_CUSTOMERS, f"federation.customers.{name}",
                     f"must lie in 1..{MOST_CUSTOMERS}, got {count}; a larger partner joins as "
                     "several")
        _require(self.federation.name != "deployment" or "@" not in self.tracking.uri,
                 "tracking.uri", "a deployment's configuration goes to every partner, so it must "
                 "not hold a login: name an MLflow server, and put its login into "
                 "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of the server's "
                 "environment")
        if partners:
            if self.federation.name == "deployment":
                self._check_deployment()
            _require(set(self.federation.customers) == set(partners), "federation.customers",
                     "must give one public estimate for each of " + ", ".join(partners))
            _require(len(set(partners)) == len(partners), "federation.partners", "has duplicates")
            _require(self.strategy.quorum <= len(partners), "strategy.quorum",
                     f"{self.strategy.quorum} is above the cohort of {len(partners)} partners")
            _require(self.strategy.opener in ("", *partners), "strategy.opener",
                     f"{self.strategy.opener!r} is not one of {', '.join(partners)}")
            _require(self.task.newcomer_partner in (None, *partners), "task.newcomer_partner",
                     f"{self.task.newcomer_partner!r} is not one of {', '.join(partners)}")
            _require((self.task.newcomer_partner is None) == (self.task.newcomer_customers == 0),
                     "task.newcomer_customers", "goes with task.newcomer_partner: name both the "
                     "partner and how many customers it brings, 1 or more, or neither")
            if not self.federation.split_into:  # then a table's partners are divided and renamed
                self.task.check_partners(partners)
            _require(self.strategy.name != "fedprox" or (
                self.privacy.contribution == "training" and self.privacy.name != "local_dp"),
                "privacy.contribution", "fedprox holds back the local training of each customer: "
                "use privacy.contribution=training (not privacy=local_dp), or strategy=fedavg")
            if self.privacy.name == "noise_shares":
                _require(self.quorum > self.privacy.colluders, "privacy.colluders",
                         f"{self.privacy.colluders} of a quorum of {self.quorum} leaves nobody "
                         "to add noise; use privacy=local_dp or more partners")
        return self

    def _check_deployment(self) -> None:
        task = self.task
        dated = task.train_snapshots and task.validation_snapshot and task.test_snapshot
        _require(bool(dated) or task.name not in ("retail_repeat", "retail_demand"),
                 "task.train_snapshots", "sites have no common table to count the calendar back "
                 "from: a deployment names task.train_snapshots, task.validation_snapshot and "
                 "task.test_snapshot (`veilsum describe-data` shows those of a table)")
        _require(task.newcomer_partner is None, "task.newcomer_partner", "is for simulations")

    @property
    def quorum(self) -> int:
        """Fewest answers of a round, with the default filled in."""
        return self.strategy.quorum or len(self.federation.partners)

    @property
    def expected_customers(self) -> int:
        """Public estimate of training customers over all partners."""
        return sum(self.federation.customers.values())

    @property
    def opener(self) -> str:
        return self.strategy.opener or min(self.federation.partners)
