"""What tables and studies rest on: training in one place is the run that a protocol stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.in_the_open import Case
from experiments.simulate import simulate
from learning.models import get_flat
from strategies.agreement import Agreement


@pytest.mark.parametrize("model", ["linear", "tcn"])
def test_without_noise_it_ends_where_an_encrypted_run_ends(configure, model) -> None:  # type: ignore[no-untyped-def]
    config = configure(privacy={"name": "none"}, encryption={"bits": 20}, model={"name": model},
                       strategy={"rounds": 10})
    (whole,) = (row for row in simulate(config).comparisons if row.partner == "all")
    case = Case.of(config)
    trained = case.train(np.random.default_rng(0))
    assert case.value(lambda _: trained, "test") == pytest.approx(
        whole.federated.value, abs=1e-4)
    assert case.value(None, "test") == pytest.approx(whole.naive.value, abs=1e-6)
    assert whole.federated.value != pytest.approx(0.5, abs=0.01)


def test_its_noise_is_what_the_plan_adds_to_a_sum(configure) -> None:  # type: ignore[no-untyped-def]
    """Three partners' shares on 1,200 parameters: the size is known within some percent."""
    config = configure(model={"name": "mlp", "hidden": 60}, strategy={"rounds": 1},
                       encryption={"bits": 20})
    noisy = Case.of(config)
    clear = noisy.at(math.inf, config.privacy.clip_norm, config.strategy.learning_rate)
    one, other = (get_flat(case.train(np.random.default_rng(1))) for case in (noisy, clear))
    agreement = Agreement.of(noisy.config)
    to_sum = agreement.divisor(agreement.partners) / config.strategy.learning_rate
    drawn = ((one - other) * to_sum).std()
    update = agreement.training.region("update")
    planned = math.sqrt(3) * update.share_std_steps * update.step
    assert drawn == pytest.approx(planned, rel=0.1)
    assert clear.at(3.0, 0.5, 0.3).config.privacy == noisy.config.privacy


def test_another_model_keeps_the_data(configure) -> None:  # type: ignore[no-untyped-def]
    case = Case.of(configure())
    other = case.under(configure(model={"name": "mlp"}))
    assert other.datas is case.datas and other.config.federation == case.config.federation
    assert other.config.model.name == "mlp"
    assert 0 < case.value(None, "validation") < 1
