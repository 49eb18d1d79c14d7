"""What stays at a partner is exactly what model.head names."""

import numpy as np
import pytest

from conf.schema import InvalidConfig, ModelConfig
from learning.customers import InputShape
from learning.heads import HeadMask
from learning.models import build_model, get_flat

SHAPE = InputShape(outputs=2, per_output=3, steps=4, channels=2)


@pytest.mark.parametrize(("name", "head", "names"), [
    ("linear", "shared", set()), ("linear", "bias", {"layers.0.bias"}),
    ("mlp", "bias", {"layers.2.bias"}), ("mlp", "last_layer", {"layers.2.weight", "layers.2.bias"}),
    ("tcn", "last_layer", {"head.line.weight", "head.line.bias"}),
    ("dpgru", "bias", {"head.line.bias"}),
])
def test_the_mask_covers_the_named_parameters(name: str, head: str, names: set[str]) -> None:
    model = build_model(ModelConfig(name, head=head), SHAPE, 0)
    mask = HeadMask.of(model, head)
    expected = np.concatenate([np.full(value.numel(), key in names)
                               for key, value in model.named_parameters()])
    np.testing.assert_array_equal(mask.own, expected)
    assert mask.size == expected.sum() < expected.size


def test_both_parts_make_the_whole_again() -> None:
    model = build_model(ModelConfig("mlp"), SHAPE, 3)
    mask, vector = HeadMask.of(model, "last_layer"), get_flat(model)
    shared, head = mask.shared(vector), mask.head(vector)
    np.testing.assert_array_equal(mask.whole(shared, head), vector)
    for wrong in ((vector, head), (shared, shared), (shared[:-1], head)):
        with pytest.raises(ValueError, match="do not make a model"):
            mask.whole(*wrong)


def test_a_linear_model_is_not_all_head() -> None:
    with pytest.raises(InvalidConfig, match=r"model\.head: .*nothing is left to share"):
        ModelConfig("linear", head="last_layer").validate()
    ModelConfig("linear", head="bias").validate()
