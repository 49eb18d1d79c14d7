"""The comparison's rows are what they say they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf.schema import ModelConfig, TaskConfig
from learning.auc import auc
from learning.customers import CustomerParts, PartnerData
from learning.evaluation import concatenate, evaluate, fit_baselines
from learning.retail_repeat import RetailRepeat
from learning.training import scores

Case = tuple[RetailRepeat, dict[str, PartnerData]]


@pytest.fixture
def case(task: TaskConfig, tmp_path: Path) -> Case:
    made = RetailRepeat(task, 0)
    return made, {name: made.load(path) for name, path in made.split_by_partner(tmp_path).items()}


def test_rows_and_their_values(case: Case) -> None:
    made, datas = case
    local, pooled = fit_baselines(datas, ModelConfig(), made, 0)
    rows = evaluate(datas, dict.fromkeys(datas, local["west"]), local, pooled, made.metric, seed=0,
                    resamples=100)
    assert [row.partner for row in rows] == ["north", "south", "west", "all", "held out"]
    west = datas["west"].test.whole()
    targets = west.targets[west.mask][:, 0]
    assert rows[2].naive.value == pytest.approx(auc(west.naive[west.mask][:, 0], targets))
    assert rows[2].local.value == pytest.approx(auc(
        scores(local["west"], west)[west.mask][:, 0], targets))
    assert rows[2].gain_over_local.value == rows[2].gain_over_local.high == 0
    everyone = concatenate([data.test.whole() for data in datas.values()])
    assert rows[3].pooled.value == pytest.approx(
        auc(scores(pooled, everyone)[everyone.mask][:, 0], everyone.targets[everyone.mask][:, 0]))
    assert rows[3].customers == sum(row.customers for row in rows[:3])
    assert rows[3].pooled.low <= rows[3].pooled.value <= rows[3].pooled.high


def test_a_partner_without_test_examples_is_reported_not_hidden(
    case: Case
) -> None:
    made, datas = case
    nobody = CustomerParts.of(
        datas["north"].test.whole().take(np.zeros(0, np.int64)))
    empty = PartnerData(datas["north"].train, datas["north"].validation, nobody, nobody)
    local, pooled = fit_baselines(datas, ModelConfig(), made, 0)
    rows = evaluate({**datas, "north": empty}, dict.fromkeys(datas, pooled), local, pooled,
                    made.metric, seed=0, resamples=20)
    assert rows[0].customers == 0 and np.isnan(rows[0].federated.value)
    assert np.isfinite(rows[3].federated.value)


def test_within_partners_counts_pairs_of_one_partner_alone(case: Case) -> None:
    made, datas = case
    nobody = CustomerParts.of(
        datas["north"].test.whole().take(np.zeros(0, np.int64)))
    datas = {**datas, "void": PartnerData(datas["north"].train, datas["north"].validation, nobody,
                                          nobody)}
    local, pooled = fit_baselines(datas, ModelConfig(), made, 0)
    rows = evaluate(datas, dict.fromkeys(datas, pooled), local, pooled, made.metric, seed=0,
                    resamples=100, within=True)
    found, pairs, right = rows[-1], 0, 0.0
    for name, data in datas.items():
        score = scores(local[name], data.test.whole())[data.test.whole().mask][:, 0]
        positive = data.test.whole().targets[data.test.whole().mask][:, 0] > 0.5
        apart = score[positive][:, None] - score[~positive][None]
        pairs, right = pairs + apart.size, right + (apart > 0).sum() + (apart == 0).sum() / 2
    assert found.partner == "within partners" and found.customers == rows[-3].customers
    assert found.local.value == pytest.approx(right / pairs)
    assert found.local.low < found.local.value < found.local.high
    assert found.gain_over_local.value == pytest.approx(found.federated.value - found.local.value)
