"""Arithmetic in which a customer's numbers depend on that customer alone, to the bit.

Floating-point sums depend on their order, and libraries choose the order by the size of the whole
batch and a row's place in it. So in a plain batched computation each customer's last bits depend
on who else is there, and under a hostile model so does whether its gradient is a number at all.
Here they cannot, because every operation is of one of two kinds:

- Elementwise +, -, *, /, comparison, rounding and scaling by powers of two: IEEE 754 fixes their
  results wherever an element stands. exp, tanh and the logarithm are built from them.
- Products and sums of integers below 2^53: exact in float64, so the same in every order, with or
  without fused operations, on any number of threads, and not changed by added zeros. Before a
  product each factor is rounded to integers of its own scale (a power of two taken from the
  largest of the customer's own numbers, or of the model's), with so few bits that the sum fits.
  The idea is that of Ozaki et al., "Error-free transformations of matrix multiplication", 2012,
  with one slice: 24 bits are left of what a layer is given, as in float32, and of the other factor
  29 less the logarithm of the number of terms.

Guarantee: under :class:`Exact` each row of a result, and each row of a gradient, is a function of
the model and of that row's customer. A padded place must repeat one of the customer's own examples
(``learning.training``): what it gives is then not a number only where that example's is none, and
with a slope of 0 it adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor
_MANTISSA_BITS = 53
INPUT_BITS = 24
"""Of the first factor of a product: what a layer is given."""
_LEAST_BITS = 12
"""Fewer would be worse than float32 by more than a training notices."""


class NotExact(ValueError):
    """A model uses an operation of which this module cannot say that rows stay apart."""


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent as float64, exactly, for int64 exponents; those outside -1022..1023 saturate."""
    return ((exponent.clamp(-1022, 1023) + 1023) << 52).view(torch.float64)


def rounded(values: Tensor, dims: tuple[int, ...], bits: Tensor | int) -> tuple[Tensor, Tensor]:
    """Integers of at most 2^bits, and the powers of two to multiply them by; one scale for all
    numbers along ``dims``. Not a number where those hold infinity or none."""
    peak = torch.maximum(values.amax(dims, keepdim=True), -values.amin(dims, keepdim=True))
    _, exponent = torch.frexp(torch.where(torch.isfinite(peak), peak, 0.0))
    # The smallest normal number, squared, must still be far from an overflow of its inverse.
    shift = bits - exponent.to(torch.int64).clamp(min=-900)
    return (values * power_of_two(shift)).round_(), power_of_two(-shift)


def bits_for(terms: Tensor | int) -> Tensor | int:
    """Bits of the second factor, so that a sum of ``terms`` products with first factors of
    INPUT_BITS stays below 2^53. A Tensor counts each customer's own terms: of very many, few bits
    are left, but never an error, which would tell the server of that customer. Raises ValueError
    for a layer with too many inputs."""
    if isinstance(terms, Tensor):
        return (_MANTISSA_BITS - INPUT_BITS - _log2(terms)).clamp(min=1)
    bits = _MANTISSA_BITS - INPUT_BITS - math.ceil(math.log2(max(terms, 1)))
    if bits < _LEAST_BITS:
        raise ValueError(f"a layer of {terms} inputs is too large for an exact sum")
    return bits


def total(values: Tensor, dims: tuple[int, ...], terms: Tensor | int) -> Tensor:
    """Sum over ``dims``, which are dropped; at most ``terms`` of the numbers are not 0. A Tensor of
    terms has the shape of the result with ``dims`` kept as 1."""
    log2 = _log2(terms) if isinstance(terms, Tensor) else math.ceil(math.log2(max(terms, 1)))
    integers, scale = rounded(values, dims, _MANTISSA_BITS - log2)
    return (integers.sum(dims, keepdim=True) * scale).squeeze(dims)


def _log2(terms: Tensor) -> Tensor:
    """Whole numbers, rounded up; 2^n counts as n + 1."""
    return torch.frexp(terms.double().clamp(min=1))[1].to(torch.int64)


def row_sums(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, k) -> (n,): each row's sum, the same however many zeros stand in it, and whichever rows
    are there."""
    if not values.size:
        return np.zeros(len(values))
    numbers = torch.from_numpy(np.array(values, np.float64))
    return total(numbers, (1,), torch.count_nonzero(numbers, 1).unsqueeze(1)).numpy()


# --- elementwise functions, of IEEE operations alone ------------------------------------------

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
"""Cody and Waite's split: multiples of the first by integers below 2^20 are exact."""
_EXP = tuple(1 / math.factorial(k) for k in range(10, -1, -1))
_ATANH = tuple(1 / (2 * k + 1) for k in range(10, -1, -1))
"""Series of Taylor: wrong by less than 2^-39."""


def exp_of_negative(values: Tensor) -> Tensor:
    """exp of numbers <= 0, within 2^-39 of it relatively; below -700 about 0."""
    bounded = values.clamp(min=-700.0)  # NaN stays NaN
    turns = torch.round(bounded * _LOG2_E)
    rest = bounded - turns * _LN2_HIGH - turns * _LN2_LOW
    result = torch.full_like(rest, _EXP[0])
    for coefficient in _EXP[1:]:
        result = result * rest + coefficient
    return result * power_of_two(torch.nan_to_num(turns).to(torch.int64))


def sigmoid(values: Tensor) -> Tensor:
    small = exp_of_negative(-values.abs())
    return torch.where(values >= 0, 1.0, small) / (1 + small)


def tanh(values: Tensor) -> Tensor:
    small = exp_of_negative(-2 * values.abs())
    size = (1 - small) / (1 + small)
    return torch.where(values < 0, -size, size)


def log_of_one_plus_exp(values: Tensor) -> Tensor:
    """log(1 + exp(v)) = max(v, 0) + 2 atanh(s), s = e / (2 + e) with e = exp(-|v|)."""
    small = exp_of_negative(-values.abs())
    part = small / (2 + small)
    square = part * part
    series = torch.full_like(part, _ATANH[0])
    for coefficient in _ATANH[1:]:
        series = series * square + coefficient
    return values.clamp(min=0) + 2 * part * series


# --- the operations of a model ---------------------------------------------------------------


class _Linear(torch.autograd.Function):
    """(b, e, ..., f) inputs, (b, h, f) weights and (b, h) biases of b customers -> (b, e, ..., h).
    ``counts`` (b,): examples of each that have a slope. Weights that all share may be expanded."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None,
                counts: Tensor) -> Tensor:
        # One scale a customer: the same integers serve the gradient by the weights.
        integers, scale = rounded(inputs, tuple(range(1, inputs.ndim)), INPUT_BITS)
        ctx.save_for_backward(integers, scale, weight, counts)
        result = _product(integers, weight.transpose(1, 2)) * scale
        return result if bias is None else result + bias.view(
            len(bias), *[1] * (inputs.ndim - 2), -1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = slopes
        inputs, scale, weight, counts = ctx.saved_tensors
        by_input = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            integers, slope_scale = rounded(slope, (-1,), INPUT_BITS)
            by_input = _product(integers, weight) * slope_scale
        terms = (counts * math.prod(inputs.shape[2:-1])).view(-1, 1, 1)
        left = slope.reshape(len(slope), -1, slope.shape[-1])
        if ctx.needs_input_grad[1]:
            integers, slope_scale = rounded(left, (1,), bits_for(terms))
            right = inputs.reshape(len(inputs), -1, inputs.shape[-1])
            by_weight = torch.bmm(integers.transpose(1, 2), right) * (
                slope_scale.transpose(1, 2) * scale.view(-1, 1, 1))
        if ctx.needs_input_grad[2]:
            by_bias = total(left, (1,), terms)
        return by_input, by_weight, by_bias, None


def _product(integers: Tensor, right: Tensor) -> Tensor:
    """(b, ..., k) integers of INPUT_BITS @ (b, k, n) -> (b, ..., n), each sum exact over its k
    terms."""
    shared = right.stride(0) == 0 or len(right) == 1
    other, scale = rounded(right[:1] if shared else right, (1,), bits_for(integers.shape[-1]))
    flat = (integers.reshape(-1, integers.shape[-1]) @ other[0] if shared else
            torch.bmm(integers.reshape(len(integers), -1, integers.shape[-1]), other))
    return flat.view(*integers.shape[:-1], -1) * scale.view(
        len(scale), *[1] * (integers.ndim - 2), -1)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        result = tanh(values)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return slopes[0] * (1 - result * result)


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        result = sigmoid(values)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return slopes[0] * result * (1 - result)


class _Expand(torch.autograd.Function):
    """Repetition along dimensions of one example (never of customers or examples)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.dims = tuple(i for i in range(len(shape)) if values.shape[i] != shape[i])
        if ctx.dims and ctx.dims[0] < 2:
            raise NotExact("customers or examples are repeated")
        ctx.repeats = math.prod(shape[i] for i in ctx.dims)
        return values.expand(shape)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        if not ctx.dims:
            return slopes[0], None
        summed = total(slopes[0], ctx.dims, ctx.repeats)
        for dim in ctx.dims:
            summed = summed.unsqueeze(dim)
        return summed, None


def _expand(values: Tensor, *sizes: Any) -> Tensor:
    wanted = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(wanted) != values.ndim:
        raise NotExact("a dimension is put before the customers")
    shape = tuple(own if size == -1 else size
                  for own, size in zip(values.shape, wanted, strict=True))
    return _Expand.apply(values, shape)


def _mean(values: Tensor, dim: int) -> Tensor:
    """Over the last dimension, the outputs of an example; for losses, which nothing follows."""
    if dim not in (-1, values.ndim - 1):
        raise NotExact("a mean over something else than outputs")
    return total(values, (-1,), values.shape[-1]) / values.shape[-1]


def _cross_entropy(outputs: Tensor, goals: Tensor, **settings: Any) -> Tensor:
    _each_alone(settings)
    return log_of_one_plus_exp(outputs) - outputs * goals


def _huber(outputs: Tensor, goals: Tensor, delta: float = 1.0, **settings: Any) -> Tensor:
    _each_alone(settings)
    error = (outputs - goals).abs()
    return torch.where(error <= delta, 0.5 * error * error, delta * (error - 0.5 * delta))


def _each_alone(settings: Mapping[str, Any]) -> None:
    """Raises NotExact for a loss that adds up, or weighs, examples."""
    reduction = settings.pop("reduction", "mean")
    if reduction != "none" or any(value is not None for value in settings.values()):
        raise NotExact("a loss that is not one number for each output")


_REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.tanh: _Tanh.apply, Tensor.tanh: _Tanh.apply,
    torch.sigmoid: _Sigmoid.apply, Tensor.sigmoid: _Sigmoid.apply,
    Tensor.expand: _expand, Tensor.mean: _mean,
    functional.binary_cross_entropy_with_logits: _cross_entropy,
    functional.huber_loss: _huber,
}
_MOVES = frozenset({
    Tensor.reshape, Tensor.view, Tensor.flatten, Tensor.unflatten, Tensor.squeeze,
    Tensor.unsqueeze, Tensor.flip, Tensor.unbind, Tensor.chunk, torch.chunk, torch.cat,
    torch.stack, functional.pad, Tensor.clamp, Tensor.neg, Tensor.__neg__,
    Tensor.shape.__get__, Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.dim, Tensor.size, Tensor.detach,
})
"""What moves numbers without computing with several, or with each alone."""
_PAIRS = frozenset({
    torch.add, torch.sub, torch.mul, Tensor.add, Tensor.sub, Tensor.mul, Tensor.__add__,
    Tensor.__radd__, Tensor.__sub__, Tensor.__rsub__, Tensor.__mul__, Tensor.__rmul__,
    Tensor.__truediv__, Tensor.div, torch.rsub,
})


class Exact(TorchFunctionMode):
    """While it is active, PyTorch computes as this module says; what it does not know it refuses
    with :class:`NotExact`. ``counts``: (b,) examples of each customer that are none of padding."""

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type],
                           args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is functional.linear:
            return _Linear.apply(*_three(*args, **kwargs or {}), self._counts)
        if func in _REPLACED:
            return _REPLACED[func](*args, **kwargs or {})
        plain = func in _MOVES or (func in _PAIRS and _alike(*args)) or (
            func is Tensor.__getitem__ and _slices(args[1]))
        if not plain:
            raise NotExact(f"the model uses {getattr(func, '__name__', func)}, of which it is not "
                           "known that customers stay apart in it")
        return func(*args, **kwargs or {})


def _three(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Any, ...]:
    return inputs, weight, bias


def _alike(left: Any, right: Any) -> bool:
    """Of one shape, or one of them a plain number: nothing is summed on the way back."""
    one = not (isinstance(left, Tensor) and isinstance(right, Tensor))
    return one or left.shape == right.shape


def _slices(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts)


def states_of(model: nn.Module, customers: int) -> dict[str, Tensor]:
    """The parameters in float64, each expanded by a first dimension of ``customers``."""
    return {name: value.detach().double().expand(customers, *value.shape)
            for name, value in model.named_parameters()}
