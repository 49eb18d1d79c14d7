"""Every configuration composes, and every impossible one is refused by name."""

import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from conf.compose import CONFIG_DIR, agreed_digest, from_hydra, from_json, to_json
from conf.schema import Config, InvalidConfig

GROUPS = ("task", "model", "privacy", "encryption", "strategy", "federation", "tracking")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(CONFIG_DIR) / group).glob("*.yaml"))


def _compose(*overrides: str) -> Config:
    ConfigStore.instance().store(name="schema", node=asdict(Config()))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
        return from_hydra(compose(config_name="config", overrides=list(overrides)))


@pytest.mark.parametrize(
    "override", [f"{group}={name}" for group in GROUPS for name in _options(group)])
def test_every_option_composes(override: str) -> None:
    config = _compose(override)
    group, name = override.split("=")
    assert getattr(getattr(config, group), "name", name) == name


@pytest.mark.parametrize("name", _options("experiment"))
def test_every_experiment_composes_and_changes_something(name: str) -> None:
    assert _compose(f"experiment={name}") != _compose()


@pytest.mark.parametrize("group", ["model", "strategy"])
def test_what_is_tuned_for_a_task_is_found_by_task_and_name(group: str) -> None:
    for name in _options(f"tuned/{group}"):
        task, option = name.split("-")
        composed = asdict(_compose(f"task={task}", f"{group}={option}"))
        tuned = OmegaConf.to_container(
            OmegaConf.load(CONFIG_DIR / "tuned" / group / f"{name}.yaml"))
        assert tuned
        for key, values in tuned.items():
            assert values and values.items() <= composed[key].items(), name


def test_no_strategy_takes_the_rates_of_another() -> None:
    """conf/tuned/TASK.yaml has those of fedavg: another strategy says its own."""
    rates = {"learning_rate", "head_learning_rate"}
    for task, strategy in itertools.product(_options("task"), ("fedadam", "fedprox")):
        path = CONFIG_DIR / "tuned" / "strategy" / f"{task}-{strategy}.yaml"
        assert rates <= set(OmegaConf.load(path).strategy), path.name


def test_pairs_of_privacy_and_encryption_compose() -> None:
    for privacy, suite in itertools.product(_options("privacy"), _options("encryption")):
        config = _compose(f"privacy={privacy}", f"encryption={suite}")
        assert (config.privacy.name, config.encryption.name) == (privacy, suite)


def test_yaml_hides_no_key_of_the_schema() -> None:
    for group in GROUPS:
        for name in _options(group):
            composed = asdict(_compose(f"{group}={name}"))[group]
            assert set(composed) == set(asdict(Config())[group])


def test_json_round_trip() -> None:
    config = _compose("privacy.epsilon=1.5", "strategy.rounds=7")
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(("override", "key"), [
    ("privacy.epsilon=-1", "privacy.epsilon"),
    ("privacy.epsilon=.nan", "privacy.epsilon"),
    ("privacy.epsilon=1000", "privacy.epsilon"),
    ("privacy.delta=1", "privacy.delta"),
    ("privacy.clip_norm=0", "privacy.clip_norm"),
    ("privacy.colluders=0", "privacy.colluders"),
    ("privacy.contribution=all", "privacy.contribution"),
    ("privacy.sample_rate=2", "privacy.sample_rate"),
    ("encryption.bits=40", "encryption.bits"),
    ("encryption.bits=7", "encryption.bits"),
    ("encryption.feedback=true", "encryption.feedback"),  # the default is noise_shares
    ("privacy=none encryption.feedback=true model.head=bias", "encryption.feedback"),
    ("encryption.opening=whole", "encryption.opening"),
    ("strategy.rounds=0", "strategy.rounds"),
    ("strategy.quorum=-1", "strategy.quorum"),
    ("strategy.momentum=1", "strategy.momentum"),
    ("strategy.rounds=many", "strategy.rounds"),
    ("task.holdout_fraction=1", "task.holdout_fraction"),
    ("seed=-1", "seed"),
])
def test_impossible_values_are_refused_by_key(override: str, key: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        _compose(*override.split())
    assert caught.value.key == key


def test_feedback_allows_few_bits_where_no_share_of_noise_is_at_stake() -> None:
    for privacy in ("none", "local_dp"):
        config = _compose(f"privacy={privacy}", "encryption.feedback=true", "encryption.bits=4")
        assert config.encryption.bits == 4
    with pytest.raises(InvalidConfig, match="from 4 with"):
        _compose("privacy=none", "encryption.feedback=true", "encryption.bits=3")


def test_quorum_above_the_cohort_is_refused() -> None:
    text = ('{"federation": {"partners": ["a", "b", "c"], "customers": {"a": 1, "b": 1, "c": 1}},'
            ' "strategy": {"quorum": 4}}')
    with pytest.raises(InvalidConfig, match=r"strategy\.quorum: 4 is above the cohort of 3"):
        from_json(text)


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"unknown": 1}', '{"privacy": {"x": 1}}',
                                  '{"privacy": 3}', '{"seed": "x"}', '{"task": null}'])
def test_configurations_from_others_raise_only_invalid_config(text: str) -> None:
    with pytest.raises(InvalidConfig):
        from_json(text)


@pytest.mark.parametrize("value", ["${oc.env:VEILSUM_SECRET}", "x${seed}", "${", "???"])
def test_a_configuration_from_others_reads_nothing_here(value: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """A server could compare an environment variable with the partners' names."""
    monkeypatch.setenv("VEILSUM_SECRET", "north")
    for text in (json.dumps({"tracking": {"experiment": value}}),
                 json.dumps({"federation": {"partners": [value]}}),
                 json.dumps({"federation": {"sites": {value: "x"}}})):
        with pytest.raises(InvalidConfig, match="refers to something else"):
            from_json(text)


def test_a_configuration_from_others_cannot_grow() -> None:
    """References doubled 26 times would make 640 MB out of 2 kB."""
    sites = {"a0": "0123456789", **{f"a{i}": f"${{federation.sites.a{i - 1}}}" * 2
                                    for i in range(1, 27)}}
    hostile = [json.dumps({"federation": {"sites": sites}}), "[" * 10**5, '{"a":' * 10**5,
               '{"task":{"name":' + "[" * 500 + "]" * 500 + "}}", '{"seed":' + "9" * 4000 + "}",
               '{"task":{"categories":[' + "1," * 10**5 + "1]}}", " " * 10**7,
               '{"model":{"hidden":1000000000000}}', '{"tracking":{"experiment":"\\ud800"}}']
    began = time.perf_counter()
    for text in hostile:
        with pytest.raises(InvalidConfig):
            from_json(text)
    assert time.perf_counter() - began < 5


def test_fedprox_without_local_training_names_the_cure() -> None:
    with pytest.raises(InvalidConfig, match=r"privacy\.contribution=training"):
        from_json('{"federation": {"partners": ["a", "b"], "customers": {"a": 10, "b": 10}},'
                  ' "strategy": {"name": "fedprox", "proximal": 0.1}}')


def test_parties_answer_to_all_but_what_is_the_operators_own() -> None:
    tree = asdict(Config())
    whole, free = agreed_digest(to_json(Config())), set()
    for group, values in tree.items():
        for key in values if isinstance(values, dict) else [group]:
            other = json.loads(json.dumps(tree))
            holder = other[group] if isinstance(values, dict) else other
            holder[key] = "changed"
            if agreed_digest(json.dumps(other)) == whole:
                free.add(f"{group}.{key}")
    assert free == {f"tracking.{key}" for key in tree["tracking"]} | {
        "strategy.timeout_s", "federation.folder", "federation.ray_address", "federation.sites",
        "federation.workers"}


def test_the_order_of_keys_changes_no_digest_but_a_default_that_is_left_out_does() -> None:
    text = to_json(Config())
    turned = json.dumps(dict(reversed(json.loads(text).items())))
    assert turned != text and agreed_digest(turned) == agreed_digest(text)
    assert agreed_digest("{}") != agreed_digest(text)


@pytest.mark.parametrize("uri", [
    "https://me:word@mlflow.example", "postgresql://me:word@host/db", "https://word@host"])
def test_a_login_does_not_go_to_every_partner(uri: str) -> None:
    assert _compose(f"tracking.uri='{uri}'").tracking.uri == uri  # a simulation is its own
    with pytest.raises(InvalidConfig, match="MLFLOW_TRACKING_PASSWORD") as refused:
        _compose(f"tracking.uri='{uri}'", "federation=deployment")
    assert "word@" not in str(refused.value)
