"""A server that steers what a site does by its configuration, its requests, or what was lost there.

Real data, sites with a limit of 3 and the policy that the command writes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client import policy_file
from client.policy import PolicyRefused
from client.session import Session
from client.site import Site
from conf.compose import CONFIG_DIR, from_json, to_json
from conf.schema import Config, TaskConfig
from encryption.parameters import choose_parameters
from encryption.types import Refused, RoundId
from experiments.simulate import prepared
from keyholder.keys import SharedKey
from learning import registry
from learning.holdout import held_out
from strategies.layout import TrainRequest
from tests.adversary.operator import Run

Nodes = dict[str, dict[str, object]]
RUN = "ab" * 16


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Nodes]:
    """The default run on real data; sites with a limit of 3 and their first policy."""
    from omegaconf import OmegaConf

    folder = tmp_path_factory.mktemp("real")
    task = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "task" / "retail_repeat.yaml"))
    config = prepared(from_json(json.dumps({"strategy": {"rounds": 20}, "task": task})), folder)
    SharedKey.generate(choose_parameters("shared_key", 6, 16)).save(folder / "federation.key")
    nodes: Nodes = {}
    for name, data in config.federation.sites.items():
        state = folder / "state" / name
        state.mkdir(parents=True)
        (state / policy_file.NAME).write_text(  # days that fit one household may be asked about
            "least_history_days = 1\n" + policy_file.starter(config.federation.customers))
        nodes[name] = {"partner": name, "data-path": data, "state-path": str(state),
                       "key-path": str(folder / "federation.key"), "epsilon-limit": 3,
                       "processes": 1}
    federation = replace(config.federation, name="deployment", sites={}, folder="")
    return replace(config, federation=federation).validate(), nodes


def _word(config: Config, node: dict[str, object]) -> str:
    try:
        return Session.start(to_json(config), Site.from_node_config(node)).join(RUN).partner
    except Exception as error:
        return type(error).__name__


def test_joining_says_nothing_of_one_customer(real, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A vocabulary and a day that fit one household: the site joins if it is there, and spends
    nothing. Any number of questions, no noise."""
    config, nodes = real
    node, day = nodes["area_6"], pl.col("time").dt.date().alias("day")
    table = pq.read_table(str(node["data-path"]))
    one = (pl.DataFrame(pl.from_arrow(table)).group_by("category", day).agg(
        pl.col("customer").n_unique().alias("buyers"), pl.col("customer").first())
        .filter(pl.col("buyers") == 1).sort("day", "category"))
    category, bought, _, customer = next(
        row for row in one.iter_rows()
        if row[1].month == 5 and not held_out([row[3]], 0, config.task.holdout_fraction)[0])
    asked = replace(config, task=replace(
        config.task, categories=[category], history_days=1, quiet_days=0,
        train_snapshots=[str(bought + timedelta(days=1))],
        validation_snapshot=str(bought + timedelta(days=15)),
        test_snapshot=str(bought + timedelta(days=40)))).validate()
    other = tmp_path / "other.parquet"
    pq.write_table(table.filter(pa.array(
        [name != customer for name in table.column("customer").to_pylist()])), other)
    assert _word(asked, node) == _word(asked, {**node, "data-path": str(other)})


def test_a_test_release_is_over_the_least_quorum_too(real) -> None:  # type: ignore[no-untyped-def]
    """Sums over two of six are refused in training; here four hold nobody out."""
    config, nodes = real
    asked = replace(config, task=replace(
        config.task, holdout_partners=["area_1", "area_6"], holdout_fraction=0.5))
    with pytest.raises(PolicyRefused):
        Session.start(to_json(asked), Site.from_node_config(nodes["area_1"]))


def test_configurations_that_were_asked_for_are_forgotten(real) -> None:  # type: ignore[no-untyped-def]
    config, nodes = real
    before = registry._load.cache_info().currsize
    for seed in range(100, 120):
        Session.start(to_json(replace(config, seed=seed)), Site.from_node_config(nodes["area_6"]))
    assert registry._load.cache_info().currsize - before < 20


def test_a_refused_request_leaves_nothing_behind(real) -> None:  # type: ignore[no-untyped-def]
    """Each makes two files for ever, and each later request reads all of them."""
    config, nodes = real
    session = Session.start(to_json(config), Site.from_node_config(nodes["area_5"]))
    state = Path(str(nodes["area_5"]["state-path"]))
    for number in range(20):
        with pytest.raises(Refused):
            session.contribute(TrainRequest(RoundId(f"{number:032x}", 1), "train",
                                            session.agreement.parameters.fingerprint, bytes(32)))
    assert sum(path.is_file() for path in state.rglob("*")) < 20


@pytest.mark.parametrize("lost", [("ledger.jsonl", "answered", "replies"), ("sets",)])
def test_parts_that_others_tell_of_are_missed(lost: tuple[str, ...], real) -> None:  # type: ignore[no-untyped-def]
    """keys, models, sets, openings and split.json are all still there for the first: rounds are
    answered again under fresh noise, and the ledger begins at nothing."""
    config, nodes = real
    run = Run(RUN, {name: Session.start(to_json(config), Site.from_node_config(node))
                    for name, node in nodes.items()})
    state = Path(str(nodes["area_1"]["state-path"]))
    run.sessions["area_1"].join(RUN)
    run.round()
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    for name in lost:
        shutil.rmtree(state / name) if (state / name).is_dir() else (state / name).unlink()
    try:
        with pytest.raises(Refused):
            run.sessions["area_1"].join(RUN)
    finally:
        for folder in (nodes[name]["state-path"] for name in nodes if name != "area_1"):
            for path in Path(str(folder)).iterdir():
                if path.name != policy_file.NAME:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(state)
        state.mkdir()
        shutil.copy(kept / policy_file.NAME, state)
        shutil.rmtree(kept)


def test_a_part_of_one_example_has_the_same_features(tmp_path: Path) -> None:
    """retail_cross: Polars divides a column of one row by a number in another way."""
    random = np.random.default_rng(0)
    rows = [("p", f"c{customer}", f"2017-0{random.integers(1, 8)}-{random.integers(10, 29)}",
             "ABCD"[random.integers(4)], float(random.choice([0.1, 0.3, 1, 7.7])),
             float(random.choice([1.1, 2.3, 99.9])))
            for customer in range(40) for _ in range(random.integers(1, 12))]
    frame = pl.DataFrame(rows, ["partner", "customer", "time", "category", "quantity", "value"],
                         orient="row").unique(["customer", "time", "category"])
    frame.write_csv(tmp_path / "t.csv")
    config = TaskConfig("retail_cross", history_days=40, quiet_days=0, horizon_days=7,
                        calendars={"p": "2017-01-01/2017-07-19"})
    train = registry.TASKS["retail_cross"](config, 0, False).load(tmp_path / "t.csv", "p").train
    together = train.build(np.arange(len(train)))
    for row in range(len(train)):
        alone = train.build(np.array([row]))
        assert (together.features[row][together.mask[row]].tobytes()
                == alone.features[0][alone.mask[0]].tobytes())
