"""Every name that a run carries in MLflow, in one place: two runs compare by equal names.

Nothing here talks to MLflow. Guarantee of :func:`flat_params`: no path of a site, no tracking
address (it may hold a password), no data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from conf.schema import Config
from learning.partner_names import SUMMARIES, slug
from learning.results import Comparison, Estimate, RunResult

LONGEST_PARAM = 500
"""Characters of one logged value: the least that any MLflow server accepts."""

NOT_FINITE = "not_finite."
"""Begins the tag of a metric that no chart could show."""
_HIDDEN = ("tracking.", "federation.sites", "federation.folder")

RUN_TAG = "veilsum.run"
"""The name under which partners answered: how a continued run finds itself."""
KEPT_TAG = "veilsum.kept"
"""Of a run with checkpoints: digests of its configuration and of its folder's name."""
UNFINISHED_TAG = "unfinished"
"""Of a run that ended between its model and its end."""
SEALED_FILE = "sealed/model.veilsum"
"""Artifact of a run whose model the operator cannot read; `veilsum export` opens it."""


@dataclass(frozen=True)
class DatasetDescription:
    """What a run trained on, in words that may leave the partners: no rows, no counts.

    ``source`` is an address or the name of a package; ``digest`` identifies the version.
    """

    name: str
    source: str
    digest: str
    partners: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


def flat_params(config: Config) -> dict[str, str]:
    """The resolved config as ``group.key -> text``, at most LONGEST_PARAM characters each."""
    flat: dict[str, str] = {}
    for group, values in asdict(config).items():
        if not isinstance(values, dict):
            flat[group] = str(values)
            continue
        for key, value in values.items():
            name = f"{group}.{key}"
            if not name.startswith(_HIDDEN):
                flat[name] = _shorten(_text(name, value))
    return flat


def _text(name: str, value: object) -> str:
    if name == "task.path":
        return "bundled" if value is None else "own table"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def _shorten(text: str) -> str:
    if len(text) <= LONGEST_PARAM:
        return text
    return f"{text[: LONGEST_PARAM - 40]}... ({len(text)} characters)"


def default_run_name(config: Config, run_id: str) -> str:
    """For example ``noise_shares-eps3-shared_key-linear-retail_repeat-1f03ac``.

    What usually differs comes first, because MLflow's tables cut names at about 25 characters.
    """
    epsilon = [] if config.privacy.name == "none" else [f"eps{config.privacy.epsilon:g}"]
    sealed = ["sealed"] if config.encryption.opening == "sealed" else []
    head = [] if config.model.head == "shared" else [f"own_{config.model.head}"]
    return "-".join([config.privacy.name, *epsilon, config.encryption.name, *sealed,
                     config.model.name, *head, config.task.name, run_id[:6]])


def run_note(trust: str) -> str:
    """The run's description in MLflow: what its numbers mean and whom it trusts."""
    return (
        f"**Trust.** {trust}\n\n"
        "**Names.** `val/`, `test/` and `train/` are noised sums, as a deployment's operator sees "
        "them. `oracle/` is exact, not private, and exists in a simulation only. A value that is "
        "not finite is a tag `not_finite.<name>`. `train/` at a step describes the model that this "
        "round began with; `val/` averages over about the last third of the models before it, and "
        "its error is that of the noise alone. In a released AUC customers count about alike, "
        "however many examples they have: compare it with the released AUC of the naive rule, not "
        "with exact ones.\n\n"
        "The model is recorded before its test, so a run that failed may have one. Pictures of a "
        "run that finished: *Artifacts* > *figures*."
    )


def registered_name(config: Config) -> str:
    """Name in the model registry: one per question and model, a version per run. A model whose
    head stayed with the partners says so, because its predictions are not theirs."""
    ending = "" if config.model.head == "shared" else f"-without-{config.model.head}"
    return f"veilsum-{slug(config.task.name)}-{slug(config.model.name)}{ending}"


def finite_only(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """(what a chart can show, the rest as text).

    MLflow's database stores an infinite value as 1.8e308, which flattens every chart that holds
    it; so a value that is not finite is no metric but a tag ``not_finite.<name>``.
    """
    shown: dict[str, float] = {}
    rest: dict[str, str] = {}
    for name, value in metrics.items():
        number = float(value)
        if math.isfinite(number):
            shown[name] = number
        else:
            rest[f"{NOT_FINITE}{name}"] = str(number)
    return shown, rest


def result_metrics(result: RunResult) -> dict[str, float]:
    """The end of a run as metrics: ``test/...`` released, ``oracle/test/...`` simulation only.

    The row "all" has no suffix; a partner's row ends in its name, customers that never trained
    in ``held_out``. 95% bounds, and gains, are logged for these two; those of partners
    stand in the figure, because ninety more charts would bury the run. NaN stands for "not
    computed" and is left out.
    """
    metrics = {
        name if "/" in name else f"test/{name}": value for name, value in result.released.items()
    }
    for row in result.comparisons:
        metrics |= _row_metrics(f"oracle/test/{result.metric}", row)
    metrics["model/parameters"] = float(result.parameters)
    metrics["time/total_s"] = result.seconds
    return {name: float(value) for name, value in metrics.items() if not math.isnan(value)}


def _row_metrics(base: str, row: Comparison) -> dict[str, float]:
    end = "" if row.partner == "all" else f"_{slug(row.partner)}"
    estimates: dict[str, Estimate] = {
        f"{base}{end}": row.federated,
        f"{base}_naive{end}": row.naive,
        f"{base}_local{end}": row.local,
        f"{base}_pooled{end}": row.pooled,
    }
    metrics = {name: estimate.value for name, estimate in estimates.items()}
    if row.partner not in SUMMARIES:
        return metrics
    metrics |= {f"{base}{end}_low": row.federated.low, f"{base}{end}_high": row.federated.high}
    for other, gain in (("naive", row.gain_over_naive), ("local", row.gain_over_local)):
        name = f"{base}_gain_over_{other}{end}"
        metrics |= {name: gain.value, f"{name}_low": gain.low, f"{name}_high": gain.high}
    return metrics
