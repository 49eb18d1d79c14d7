import numpy as np
import pytest

from conf.schema import StrategyConfig
from strategies.optimiser import ServerState, step


def _run(config: StrategyConfig, updates: list[float]) -> ServerState:
    state = ServerState.start(np.zeros(1))
    for update in updates:
        state = step(state, np.array([update]), config)
    return state


def test_heavy_ball_matches_its_recurrence() -> None:
    config = StrategyConfig(rounds=3, learning_rate=0.5, momentum=0.9, average_last=0.0)
    state = _run(config, [1.0, 0.0, 2.0])
    velocities = [1.0, 0.9, 0.81 + 2.0]
    assert state.model[0] == pytest.approx(0.5 * sum(velocities))
    assert state.final is state.model


def test_final_is_the_mean_of_the_last_half() -> None:
    config = StrategyConfig(rounds=4, learning_rate=1.0, momentum=0.0, average_last=0.5)
    state = _run(config, [1.0, 1.0, 1.0, 1.0])
    assert state.averaged == 2
    assert state.final[0] == pytest.approx((3 + 4) / 2)


def test_step_returns_a_new_state() -> None:
    before = ServerState.start(np.zeros(2))
    step(before, np.ones(2), StrategyConfig())
    assert before.round == 0 and not before.model.any()
