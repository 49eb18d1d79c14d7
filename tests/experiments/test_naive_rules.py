"""Rules computed from features are the rules that their names say."""

from __future__ import annotations

import numpy as np

from conf.schema import TaskConfig
from experiments.naive_rules import RULES
from learning.customers import Customers, InputShape
from learning.features import Events, snapshot_at
from learning.retail_repeat import pack

DAY = 20_000


def test_the_rules_of_retail_repeat() -> None:
    """Four visits of which two with the category, 35 and 60 days ago; nothing lately."""
    day = DAY - np.array([35, 60, 50, 70, 5])
    category = np.array([0, 0, -1, -1, -1])
    one = np.ones(5, np.float32)
    events = Events(("x",), np.zeros(5, np.int64), category, day, one, one)
    config = TaskConfig(categories=["a", "b"])
    customers = pack([snapshot_at(events, DAY, config)], np.ones(1, np.bool_))
    shape = InputShape(1, customers.features.shape[-1])
    rules = {name: float(rule(customers, shape)[0, 0, 0])
             for name, rule in RULES["retail_repeat"].items()}
    assert np.isclose(rules["days bought"] / 1.5 + 0.4, np.log(2))
    assert np.isclose(rules["shortest time since the last purchase"], -35, rtol=1e-5)
    activity = 1 + 1  # one visit in the last 28 days
    np.testing.assert_allclose(rules["days bought × activity"] - 1.6,
                               np.log(2 * np.sqrt(activity)), atol=1e-4)


def test_the_rules_of_utility_load() -> None:
    load = np.random.default_rng(0).uniform(0.5, 1.5, (7, 24)).astype(np.float32)
    scale = load.mean()
    shape = InputShape(24, 2, steps=7, channels=24)
    features = np.concatenate([np.zeros(48, np.float32), (load / scale - 1).ravel()])[None, None]
    blank = np.zeros((1, 1, 24), np.float32)
    customers = Customers(features, blank, np.ones((1, 1), np.bool_), blank,
                          np.full((1, 1), scale, np.float32))
    for name, expected in (("median of the last seven days at each hour", np.median(load, axis=0)),
                           ("yesterday", load[-1]), ("the same day a week ago", load[0])):
        np.testing.assert_allclose(RULES["utility_load"][name](customers, shape)[0, 0], expected,
                                   rtol=1e-5)
