"""ONNX operators in torch: those that image classifiers are made of.

An operator takes its node and the node's input tensors (None for one that is left out) and returns
the output, or a tuple of them. Tensors that hold shapes, axes or indices lie in the CPU's memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import EngineError
from engine.onnx_in_torch.fusion import CONV_ADD_RELU, CONV_RELU, conv_add_relu, conv_relu
from engine.onnx_in_torch.node import Node
from engine.onnx_in_torch.shape_operators import SHAPE_OPERATORS, dtype_of
from engine.onnx_in_torch.window_operators import average_pool, conv, max_pool, pad

Operator = Callable[..., Tensor | tuple[Tensor, ...]]


def _plain(function: Callable[..., Tensor]) -> Operator:
    """An operator that is one torch function of its inputs, and has no attributes that matter."""
    return lambda _node, *inputs: function(*inputs)


def _each(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, taken two by two."""
    return lambda _node, *inputs: reduce(function, inputs)


def _div(_node: Node, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    # Before opset 11 the limits were attributes.
    bottom = node.get("min", None) if low is None else low.item()
    top = node.get("max", None) if high is None else high.item()
    return x if bottom is None and top is None else x.clamp(bottom, top)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    return (x * alpha + beta).clamp(0, 1)


def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


def _elu(node: Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.get("alpha", 1.0))


def _gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def _prelu(_node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _pow(_node: Node, x: Tensor, exponent: Tensor) -> Tensor:
    # The result has the type of the base, whatever that of the exponent.
    return torch.pow(x, exponent).to(x.dtype)


def _over_classes(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def over_classes(node: Node, x: Tensor) -> Tensor:
        # In fp32 whatever the precision: probabilities of bf16 have two digits.
        if node.opset >= 13:
            return function(x.float(), node.get("axis", -1))
        # Before opset 13: over all dimensions from `axis` on.
        return function(x.float().flatten(node.get("axis", 1)), -1).reshape(x.shape)

    return over_classes


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.to(b.dtype)
    if node.get("transA", 0):
        a = a.T
    if node.get("transB", 0):
        b = b.T
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    if c is None:
        return a @ b * alpha
    return torch.addmm(c.to(b.dtype), a, b, alpha=alpha, beta=beta)


def _matmul(_node: Node, a: Tensor, b: Tensor) -> Tensor:
    # The weight is in the precision that the product is to have; the activations follow it.
    dtype = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    return a.to(dtype) @ b.to(dtype)


def _batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    if node.get("training_mode", 0):
        raise EngineError("the model was exported for training; export it for inference")
    return functional.batch_norm(
        x, mean, variance, scale, bias, training=False, eps=node.get("epsilon", 1e-5)
    )


def _layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    shape = x.shape[node.get("axis", -1) :]
    y = functional.layer_norm(x.float(), shape, eps=node.get("epsilon", 1e-5))
    return y * scale if bias is None else y * scale + bias


def _lrn(node: Node, x: Tensor) -> Tensor:
    return functional.local_response_norm(
        x, node.get("size", 5), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1)
    )


def _global_pool(function: Callable[..., Tensor]) -> Operator:
    return lambda _node, x: function(x, dim=tuple(range(2, x.ndim)), keepdim=True)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def reduction(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        # The axes became an input in opset 13 (ReduceSum) and 18 (the others).
        named = node.get("axes", []) if axes is None else axes.tolist()
        if not named and node.get("noop_with_empty_axes", 0):
            return x
        return function(x, dim=named or tuple(range(x.ndim)), keepdim=bool(node.get("keepdims", 1)))

    return reduction


def _dropout(
    _node: Node, x: Tensor, _ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor:
    if training is not None and bool(training):
        raise EngineError("the model was exported for training; export it for inference")
    return x


def _cast(node: Node, x: Tensor) -> Tensor:
    return x.to(dtype_of(node.attributes["to"]))


OPERATORS: dict[str, Operator] = {
    **SHAPE_OPERATORS,
    CONV_RELU: conv_relu,
    CONV_ADD_RELU: conv_add_relu,
    "Abs": _plain(torch.abs),
    "Add": _plain(operator.add),
    "AveragePool": average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": conv,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functional.hardswish),
    "Identity": _plain(lambda x: x),
    "LRN": _lrn,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Log": _plain(torch.log),
    "LogSoftmax": _over_classes(torch.log_softmax),
    "MatMul": _matmul,
    "Max": _each(torch.maximum),
    "MaxPool": max_pool,
    "Min": _each(torch.minimum),
    "Mish": _plain(functional.mish),
    "Mul": _plain(operator.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _prelu,
    "Pad": pad,
    "Pow": _pow,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _plain(torch.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Softmax": _over_classes(torch.softmax),
    "Softplus": _plain(functional.softplus),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(operator.sub),
    "Sum": _each(operator.add),
    "Tanh": _plain(torch.tanh),
    "Where": _plain(torch.where),
}
