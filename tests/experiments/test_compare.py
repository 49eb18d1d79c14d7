"""Two recorded runs side by side: found by what a person types, and no more said than is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conf.schema import Config, PrivacyConfig, TrackingConfig
from experiments.cli import main
from experiments.compare import direction, report
from server.recorded import RecordedRun, RunStore
from server.tracking import DatasetDescription, RunTracker

RUN = RecordedRun("a" * 32, "first", "FINISHED", "2026-01-01 10:00", {"seed": "0"}, {},
                  {"trust": "nobody"}, "data 1")
OTHER = replace(RUN, run_id="b" * 32, name="second")


def shown(first: RecordedRun, second: RecordedRun, width: int = 130) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        for part in report(first, second, width=width):
            console.print(part, highlight=False)
    return capture.get()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """Three runs: alpha, twin, twin."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    ids = []
    for name, epsilon in (("alpha", 1.0), ("twin", 3.0), ("twin", 8.0)):
        config = Config(privacy=PrivacyConfig(epsilon=epsilon),
                        tracking=TrackingConfig(uri=uri, run_name=name))
        data = DatasetDescription("retail_repeat", "a package", "0.1.0")
        with RunTracker.start(config, dataset=data) as tracker:
            tracker.finish({"val/auc": 0.6 + epsilon / 100, "privacy/epsilon": float("inf")}, {})
            ids.append(tracker.run_id)
    return uri, ids


def test_a_run_is_found_by_id_name_or_the_beginning_of_either(store: tuple[str, list[str]]) -> None:
    uri, ids = store
    runs = RunStore(uri)
    for text in (ids[0], ids[0][:12], "alpha", "alp"):
        found = runs.find(text)
        assert found.run_id == ids[0] and found.data == "retail_repeat 0.1.0"
    assert found.params["privacy.epsilon"] == "1.0"
    assert found.metrics["privacy/epsilon"] == float("inf")  # a tag in MLflow


def test_the_command_prints_both(store: tuple[str, list[str]],
                                 capsys: pytest.CaptureFixture[str]) -> None:
    uri, ids = store
    assert main(["compare", "alpha", ids[1], f"tracking.uri={uri}"]) == 0
    text = capsys.readouterr().out
    assert "privacy.epsilon" in text and "+0.0200" in text and "second" in text


@pytest.mark.parametrize(("runs", "message"), [
    (("twin", "alpha"), "2 runs"),
    (("alpha", "nobody"), "no run is called 'nobody'"),
    (("alpha", "%"), "no run is called '%'"),
    (("alpha", "x' OR attributes.run_id LIKE '"), "no run is called"),
    (("alpha", "alpha"), "the same run"),
])
def test_a_wrong_name_is_told_with_what_there_is(
    store: tuple[str, list[str]], runs: tuple[str, str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", *runs, f"tracking.uri={store[0]}"]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert runs != ("alpha", "nobody") or "twin" in told


@pytest.mark.parametrize(("override", "message"), [
    ("tracking.uri=sqlite:///missing.db", "there is no missing.db yet"),
    ("tracking.uri=bogus://x", "tracking.uri"),
    ("tracking.urj=x", "Did you mean tracking.uri"),
])
def test_without_a_store_it_says_so(override: str, message: str, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "a", "b", override]) == 2
    assert message in capsys.readouterr().err


def test_only_what_differs_is_listed_and_uncertain_orders_stay_open() -> None:
    known = {"oracle/test/auc_low": .6, "oracle/test/auc_high": .8}
    a = replace(RUN, params={"seed": "0", "model.name": "mlp"},
                metrics={"oracle/test/auc": .7, "time/total_s": 9.0, **known})
    b = replace(OTHER, params={"seed": "1", "model.name": "mlp"}, tags={"trust": "everybody"},
                metrics={"oracle/test/auc": .75, "time/total_s": 5.0, **known})
    text = shown(a, b)
    assert "seed" in text and "model.name" not in text
    rows = {line.split()[0]: line for line in text.splitlines() if "/" in line}
    assert rows["oracle/test/auc"].split()[-1] == "open"
    assert "[0.600, 0.800]" in rows["oracle/test/auc"]
    assert rows["time/total_s"].split()[-1] == "second"
    assert "nobody" in text and "everybody" in text
    assert "[0.600" not in shown(a, b, width=90)


def test_equal_runs_and_unequal_data_are_told() -> None:
    text = shown(RUN, OTHER)
    assert "Settings: no difference" in text and "Metrics: no difference" in text
    assert "trust" not in text
    warned = shown(RUN, replace(OTHER, data="data 2", status="KILLED"))
    assert "different data" in warned and "killed" in warned


@pytest.mark.parametrize(("metric", "better"), [
    ("oracle/test/auc", 1), ("test/mae", -1), ("oracle/test/mae_gain_over_local", 1),
    ("train/loss", -1), ("privacy/epsilon_if_key_leaks", -1), ("time/total_s", -1),
    ("oracle/test/auc_naive", 0), ("model/parameters", 0), ("val/auc_error", -1),
    ("encryption/upload_bytes_per_parameter", -1), ("cohort/refused", -1), ("unknown/thing", 0),
])
def test_direction(metric: str, better: int) -> None:
    assert direction(metric) == better


def test_names_from_data_are_printed_as_they_are() -> None:
    a = replace(RUN, name="werke [/süd]", params={"task.categories": "[a, [/x]"}, data="a [/b]")
    text = shown(a, replace(OTHER, tags={"trust": "all [/x]"}))
    for name in ("werke [/süd]", "[a, [/x]", "a [/b]", "all [/x]"):
        assert name in text


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_cuts_no_word(width: int) -> None:
    name = "oracle/test/auc_of_a_name_that_is_longer_than_the_others"
    a, b = replace(RUN, metrics={name: .7}), replace(OTHER, metrics={name: .75})
    lines = shown(a, b, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.rstrip().endswith("better") for line in lines)
    assert any(line.rstrip().endswith("second") and "0.750" in line for line in lines)


def test_a_forgotten_run_is_asked_for_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "x"])
    asked = capsys.readouterr().err.splitlines()[-1]
    assert asked.endswith("required: RUN")
