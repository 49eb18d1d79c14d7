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


@pytest.mark.parametrize(("rounds", "share", "averaged"), [
    (100, 0.9, 90), (100, 0.8, 80), (100, 1.0, 100), (3, 0.5, 2), (5, 0.5, 3), (10, 0.25, 3)])
def test_a_share_of_the_rounds_is_averaged(rounds: int, share: float, averaged: int) -> None:
    config = StrategyConfig(rounds=rounds, average_last=share)
    assert _run(config, [1.0] * rounds).averaged == averaged


def test_step_returns_a_new_state() -> None:
    before = ServerState.start(np.zeros(2))
    step(before, np.ones(2), StrategyConfig())
    assert before.round == 0 and not before.model.any()


def test_fedadam_matches_its_algorithm_word_for_word() -> None:
    """Algorithm 2 of Reddi et al. 2021, coordinate by coordinate in plain Python."""
    config = StrategyConfig(name="fedadam", rounds=5, learning_rate=0.1, momentum=0.8,
                            second_momentum=0.95, adaptivity=0.01, average_last=0.0)
    updates = np.random.default_rng(3).normal(size=(5, 4))
    state = ServerState.start(np.ones(4))
    for update in updates:
        state = step(state, update, config)
    for i in range(4):
        x, m, v = 1.0, 0.0, 0.01**2
        for update in updates[:, i]:
            m = 0.8 * m + (1 - 0.8) * update
            v = 0.95 * v + (1 - 0.95) * update**2
            x = x + 0.1 * m / (v**0.5 + 0.01)
        assert state.model[i] == pytest.approx(x, rel=1e-12)
    assert state.round == 5


def test_fedprox_steps_as_fedavg_does() -> None:
    """Its difference lies in the local training."""
    runs = [_run(StrategyConfig(name=name, proximal=0.5), [1.0, -2.0, 0.5])
            for name in ("fedavg", "fedprox")]
    np.testing.assert_array_equal(runs[0].model, runs[1].model)
