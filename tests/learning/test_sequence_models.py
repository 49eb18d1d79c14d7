"""The sequence models against references: torch's GRU, Conv1d, and what may not see the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema import InvalidConfig, ModelConfig
from learning.customers import InputShape
from learning.models import build_model, get_flat
from learning.sequence_models import GRU, TCN

SHAPE = InputShape(outputs=24, per_output=5, steps=7, channels=24)


def features(examples: int = 6, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(size=(examples, SHAPE.size))
    return torch.from_numpy(drawn.astype(np.float32))


def shuffled(model: nn.Module, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def test_the_gru_is_torchs() -> None:
    model = shuffled(GRU(SHAPE, 4))
    reference = nn.GRU(24, 4, batch_first=True)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.inputs.weight)
        reference.bias_ih_l0.copy_(model.inputs.bias)
        reference.weight_hh_l0.copy_(model.states.weight)
        reference.bias_hh_l0.copy_(model.states.bias)
    x = features()
    _, last = reference(SHAPE.history(x)[:, 0])
    torch.testing.assert_close(model(x), model.head(x, last[0, :, None]))


@pytest.mark.parametrize(("kernel", "levels"), [(2, 2), (3, 1), (3, 2), (1, 3), (2, 3), (7, 1)])
def test_the_tcn_is_a_stack_of_dilated_causal_convolutions(kernel: int, levels: int) -> None:
    model = shuffled(TCN(SHAPE, 4, kernel, levels))
    x = features()
    state, dilation = SHAPE.history(x)[:, 0].transpose(1, 2), 1
    for level in model.levels:
        width = level.in_features // kernel
        # Lag k of our windows is tap kernel - 1 - k of a convolution.
        weight = level.weight.reshape(4, kernel, width).transpose(1, 2).flip(-1)
        padded = nn.functional.pad(state, (dilation * (kernel - 1), 0))
        state = torch.tanh(nn.functional.conv1d(padded, weight, level.bias, dilation=dilation))
        dilation *= kernel
    reference = model.head(x, state[:, None, :, -1])
    torch.testing.assert_close(model(x), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["tcn", "dpgru"])
def test_shapes_sizes_and_the_first_answer(name: str) -> None:
    model = build_model(ModelConfig(name, 4), SHAPE, 3)
    assert get_flat(model).size < 500
    for lead in ((), (5,), (3, 5)):
        x = torch.randn(*lead, SHAPE.size)
        assert model(x).shape == (*lead, 24)
        assert not model(x).any(), "regression starts at the naive prediction"
    other = build_model(ModelConfig(name, 4), SHAPE, 4)
    assert not np.array_equal(get_flat(model), get_flat(other))


@pytest.mark.parametrize("name", ["tcn", "dpgru"])
def test_the_history_matters_and_each_output_has_its_own_features(name: str) -> None:
    model = shuffled(build_model(ModelConfig(name, 4), SHAPE, 3))
    x = features()
    before = model(x)
    changed = x.clone()
    SHAPE.history(changed)[:, 0, -1] += 1
    assert (model(changed) != before).all()
    changed = x.clone()
    SHAPE.groups(changed)[:, 7] += 1
    different = (model(changed) != before).any(0)
    assert different.tolist() == [hour == 7 for hour in range(24)]


@pytest.mark.parametrize("name", ["tcn", "dpgru"])
def test_a_history_of_each_output_reaches_no_other(name: str) -> None:
    shape = InputShape(outputs=3, per_output=2, steps=4, channels=2, series=3)
    model = shuffled(build_model(ModelConfig(name, 4), shape, 3))
    x = torch.randn(6, shape.size)
    before = model(x)
    changed = x.clone()
    shape.history(changed)[:, 1, -1] += 1
    assert (model(changed) != before).any(0).tolist() == [False, True, False]
    # The same history and features at two outputs: the same answer.
    shape.history(changed)[:, 2] = shape.history(changed)[:, 1]
    shape.groups(changed)[:, 2] = shape.groups(changed)[:, 1]
    torch.testing.assert_close(*model(changed)[:, 1:].T)


@pytest.mark.parametrize("name", ["tcn", "dpgru"])
def test_a_task_without_a_history_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidConfig, match="model=linear or model=mlp"):
        build_model(ModelConfig(name), InputShape(1, 39), 0)
