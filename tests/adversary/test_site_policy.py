"""What a server may not ask of a site, whatever else it says: the site's policy.

Every attack goes through the real client, on the real data, at sites with a limit of 3. Without a
policy sites answer those with a small quorum, invented partners, lying estimates or a larger
epsilon; what the sums then tell stands in tests/privacy/test_exposure.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import policy_file
from client.app import _sessions, app
from client.policy import PolicyRefused, SitePolicy
from client.session import Session
from client.site import Site
from conf.compose import from_json, to_json
from conf.schema import MOST_CUSTOMERS, Config
from encryption.parameters import choose_parameters
from encryption.types import OpeningClaim, RoundId
from experiments.local_grid import LocalGrid
from experiments.simulate import prepared
from keyholder.keys import SharedKey
from learning.registry import shared_start
from strategies import layout
from strategies.exchange import ask
from strategies.global_model import model_digest
from strategies.layout import PartnerRefused, parse_join_reply, parse_train_reply

RUN = "ab" * 16
Change = Callable[[Config], Config]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, dict[str, object]]]:
    """The default run on real data, and real sites' node configurations."""
    folder = tmp_path_factory.mktemp("real")
    tree = {"strategy": {"rounds": 20}, "task": json.loads(_default_task())}
    config = prepared(from_json(json.dumps(tree)), folder)
    SharedKey.generate(choose_parameters("shared_key", 6, 16)).save(folder / "federation.key")
    nodes: dict[str, dict[str, object]] = {}
    for name, data in config.federation.sites.items():
        state = folder / "state" / name
        state.mkdir(parents=True)
        (state / policy_file.NAME).write_text(policy_file.starter(config.federation.customers))
        nodes[name] = {"partner": name, "data-path": data, "state-path": str(state),
                       "key-path": str(folder / "federation.key"), "epsilon-limit": 3,
                       "processes": 1}
    federation = replace(config.federation, name="deployment", sites={}, folder="")
    return replace(config, federation=federation).validate(), nodes


def _default_task() -> str:
    """conf/task/retail_repeat.yaml as JSON."""
    from omegaconf import OmegaConf

    from conf.compose import CONFIG_DIR

    return json.dumps(OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "task" /
                                                            "retail_repeat.yaml")))


def _of(config: Config, group: str, /, **values: object) -> Config:
    return replace(config, **{group: replace(getattr(config, group), **values)})


def _among(config: Config, partners: list[str], quorum: int = 0, **customers: int) -> Config:
    """The run with these partners; estimates that are not given are as before, or 600."""
    known = {**config.federation.customers, **customers}
    changed = _of(config, "federation", partners=partners,
                  customers={name: known.get(name, 600) for name in partners})
    return _of(changed, "strategy", quorum=quorum)


ATTACKS: Mapping[str, Change] = {
    "a quorum of one, with local_dp": lambda c: _of(
        _of(c, "strategy", quorum=1), "privacy", name="local_dp"),
    "pairs: A and V": lambda c: _among(c, ["area_1", "area_6"]),
    "pairs: B and V": lambda c: _among(c, ["area_2", "area_6"]),
    "pairs: A and V, with names that fill the key's number": lambda c: _among(
        c, ["area_1", "area_6", "x1", "x2", "x3", "x4"], 2),
    "a quorum of two among all": lambda c: _of(c, "strategy", quorum=2),
    "all but one": lambda c: _among(c, [f"area_{n}" for n in (1, 2, 3, 4, 6)]),
    "invented partners": lambda c: _among(c, ["area_6", "x1", "x2", "x3", "x4", "x5"]),
    "four sock puppets beside all": lambda c: _among(
        c, [*c.federation.partners, "area_7", "area_8", "area_9", "area_10"]),
    "look-alike names": lambda c: _among(
        c, ["area_6", "Area_6", "area_6 ", "\u0430rea_6", "area-6", "AREA_6"]),
    "plaintext": lambda c: _of(c, "encryption", name="plaintext"),
    "no privacy": lambda c: _of(c, "privacy", name="none"),
    "a larger epsilon": lambda c: _of(c, "privacy", epsilon=3.01),
    "a larger delta": lambda c: _of(c, "privacy", delta=1.1e-5),
    "one partner weighs all": lambda c: _of(
        _among(c, c.federation.partners, area_6=10 ** 6), "privacy", name="local_dp"),
    "one customer everywhere": lambda c: _among(
        c, c.federation.partners, **dict.fromkeys(c.federation.partners, 1)),
    "nearly all others held out": lambda c: _of(
        c, "task", holdout_fraction=0.999, holdout_partners=c.federation.partners[:-1]),
    "one partner's test alone": lambda c: _of(c, "task", holdout_partners=["area_6"]),
    "a model beyond memory": lambda c: _of(_of(c, "model", name="mlp"), "model", hidden=4096),
    "rounds without end": lambda c: _of(c, "strategy", rounds=100_000),
    "steps without end": lambda c: _of(c, "privacy", contribution="training", local_steps=100_000),
    "a history beyond memory": lambda c: _of(c, "task", history_days=10 ** 9),
    "a thousand snapshots": lambda c: _of(c, "task", train_snapshots=["2017-03-01"] * 1000),
    "a thousand categories": lambda c: _of(
        c, "task", categories=[f"category {n}" for n in range(1000)]),
}
NARROWER = {
    "another task": ('tasks = ["retail_cross"]', lambda c: c),
    "another column": ('columns = ["customer", "time", "category"]', lambda c: c),
    "another category": ('categories = ["SOFT DRINKS"]', lambda c: c),
    "another day": ('days = ["2017-01-01", "2017-06-30"]', lambda c: c),
    "revealed": ('openings = ["sealed"]', lambda c: c),
    "sealed": ('openings = ["revealed"]', lambda c: _of(c, "encryption", opening="sealed")),
    "noise shares": ('privacy = ["local_dp"]', lambda c: c),
    "another cipher": ('encryption = ["shared_key_rlwe"]', lambda c: c),
    "few customers": ("least_customers = 2000", lambda c: c),
    "a smaller epsilon": ("epsilon_per_run = 1", lambda c: c),
}
"""What a policy may forbid that the default one allows."""


def _never(*_: object) -> None:
    raise AssertionError("the site read its data or its key")


def _replies(config: Config, node: Mapping[str, object]) -> list[Message]:
    """What one site answers to a request of each kind."""
    fingerprint = choose_parameters("shared_key", 6, 16).fingerprint
    requests = (
        (layout.join_request(RUN, fingerprint), layout.JOIN),
        (layout.train_request(layout.TrainRequest(RoundId(RUN, 1), "train", fingerprint,
                                                  _start_digest(config))), layout.TRAIN),
        (layout.open_request(layout.OpenRequest(
            OpeningClaim(RoundId(RUN, 1), (0, 1), bytes(32)), "train", fingerprint, (b"sum",),
            bytes(32))), layout.OPEN))
    name = str(node["partner"])
    with LocalGrid(app, {name: dict(node)}, {"config": to_json(config)}, workers=1) as grid:
        return [reply for content, kind in requests for reply in grid.send_and_receive(
            ask({next(iter(grid.names)): content}, kind, "1"), timeout=60)]


def _start_digest(config: Config) -> bytes:
    """What a server names of a configuration that makes a model, and of any other."""
    try:
        return model_digest(shared_start(config))
    except (ValueError, MemoryError, RuntimeError):
        return bytes(32)


def _refused_unread(config: Config, node: Mapping[str, object],
                    patch: pytest.MonkeyPatch) -> None:
    """Asserts that a site answers every request with one word, and has touched nothing."""
    before = sorted(Path(str(node["state-path"])).rglob("*"))
    patch.setattr("client.session.load_partner", _never)
    patch.setattr("client.session.SharedKey.load", _never)
    patch.setattr("client.session.Agreement.of", _never)
    for reply in _replies(config, node):
        assert reply.content == layout.refusal("PolicyRefused")
    assert sorted(Path(str(node["state-path"])).rglob("*")) == before


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_default_policy_refuses(attack: str, real, monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
                                    caplog: pytest.LogCaptureFixture) -> None:
    config, nodes = real
    _refused_unread(ATTACKS[attack](config), nodes["area_6"], monkeypatch)
    assert "this site's policy does not allow the run" in caplog.text


@pytest.mark.parametrize("what", NARROWER)
def test_a_narrower_policy_refuses(what: str, real, tmp_path: Path,  # type: ignore[no-untyped-def]
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    config, nodes = real
    line, change = NARROWER[what]
    path = tmp_path / "own.toml"
    path.write_text(line + "\n" + policy_file.starter(config.federation.customers))
    node = {**nodes["area_6"], "policy-path": str(path)}
    _refused_unread(change(config), node, monkeypatch)


def test_an_honest_run_is_taken_by_every_site(real) -> None:  # type: ignore[no-untyped-def]
    config, nodes = real
    for node in nodes.values():
        join, train, _ = _replies(config, node)
        assert parse_join_reply(join).partner == node["partner"]
        assert parse_train_reply(train).blocks


def test_all_reasons_are_said_at_once_and_at_the_site_alone(real) -> None:  # type: ignore[no-untyped-def]
    config, nodes = real
    bad = _of(_of(_of(config, "privacy", name="local_dp", epsilon=9.0, delta=1e-3),
                  "encryption", name="plaintext"), "strategy", quorum=1, rounds=5000)
    with pytest.raises(PolicyRefused) as caught:
        Session.start(to_json(bad), Site.from_node_config(nodes["area_1"]))
    for key in ("strategy.quorum", "encryption", "epsilon_per_run", "delta", "most.rounds"):
        assert f"\n  {key}: " in str(caught.value)


def test_a_policy_that_is_changed_holds_from_the_next_message_on(real, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Also in a process that holds the run's session already."""
    config, nodes = real
    path = tmp_path / "own.toml"
    text = policy_file.starter(config.federation.customers)
    path.write_text(text)
    node = {**nodes["area_3"], "policy-path": str(path)}
    _sessions.clear()
    assert parse_join_reply(_replies(config, node)[0])
    path.write_text("epsilon_per_run = 1.0\n" + text)
    with pytest.raises(PartnerRefused, match="PolicyRefused"):
        parse_join_reply(_replies(config, node)[0])


def _any_deviation() -> st.SearchStrategy[Change]:
    """One point of a configuration beyond the default policy for six partners."""
    def group(name: str, /, **values: st.SearchStrategy[object]) -> st.SearchStrategy[Change]:
        return st.fixed_dictionaries(values).map(
            lambda drawn: lambda config: _of(config, name, **drawn))

    names = [f"area_{n}" for n in range(1, 7)]
    text = st.text(st.characters(codec="utf-8", exclude_characters="$"), min_size=1, max_size=30)
    return st.one_of(
        group("privacy", epsilon=st.floats(3, 100, exclude_min=True)),
        group("privacy", delta=st.floats(1e-5, 9e-3, exclude_min=True)),
        group("privacy", name=st.just("none")),
        group("privacy", local_steps=st.integers(101, 100_000)),
        group("encryption", name=st.just("plaintext")),
        group("model", hidden=st.integers(257, 4096)),
        group("strategy", rounds=st.integers(1001, 100_000)),
        group("strategy", quorum=st.integers(2, 5)),
        group("task", holdout_fraction=st.floats(0.5, 0.99, exclude_min=True)),
        group("task", holdout_partners=st.lists(
            st.sampled_from(names), min_size=1, max_size=5, unique=True)),
        group("task", time_zone=st.sampled_from(["Europe/Paris", "Pacific/Apia"]),
              name=st.just("utility_load")),
        group("task", name=st.just("retail_cross"), calendars=st.dictionaries(
            st.sampled_from(names), st.just("2017-01-01/2017-12-30"), min_size=1)),
        group("task", history_days=st.integers(732, 10 ** 9)),
        group("task", history_days=st.integers(1, 27), quiet_days=st.just(0)),
        st.lists(text.filter(lambda name: name not in names), min_size=1, max_size=4, unique=True)
        .map(lambda more: lambda config: _among(config, [*names, *more])),
        st.sets(st.sampled_from(names), min_size=2, max_size=5)
        .map(lambda some: lambda config: _among(config, sorted(some))),
        st.tuples(st.sampled_from(names), st.one_of(st.just(1), st.integers(1300, MOST_CUSTOMERS)))
        .map(lambda pair: lambda config: _among(config, names, **{pair[0]: pair[1]})),
    )


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=_any_deviation())
def test_whatever_deviates_in_one_point_is_refused_unread(  # type: ignore[no-untyped-def]
        change: Change, real) -> None:
    config, nodes = real
    changed = change(config)
    site = Site.from_node_config(nodes["area_2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.session.load_partner", _never)
        patch.setattr("client.session.SharedKey.load", _never)
        with pytest.raises(PolicyRefused):
            Session.start(to_json(changed), site)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=20), st.integers(1, 10 ** 6), min_size=2,
                       max_size=12))
def test_a_first_policy_reads_as_the_defaults(customers: dict[str, int]) -> None:
    """For any names that do not look alike; otherwise it is refused."""
    try:
        text = policy_file.starter(customers)
        policy = policy_file.parse(text)
    except (policy_file.PolicyError, UnicodeError):
        return
    assert policy == SitePolicy.known(customers)
