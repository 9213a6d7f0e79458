"""ONNX operators that move a window over an image, in torch: convolutions, pools, and padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import EngineError
from engine.onnx_in_torch.node import Node

# By the number of spatial dimensions.
_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAX_POOL: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE_POOL = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv. The weight's precision is the one that it computes in."""
    x, strides, padding, dilations, group = conv_arguments(node, x, weight)
    return _CONV[len(strides)](x, weight, bias, strides, padding, dilations, groups=group)


def conv_arguments(
    node: Node, x: Tensor, weight: Tensor
) -> tuple[Tensor, list[int], list[int], list[int], int]:
    """A Conv as torch takes it: input in its precision, strides, padding, dilations, group.

    Padding that torch cannot express is in the returned input already.
    """
    kernel = list(weight.shape[2:])
    strides = node.get("strides", [1] * len(kernel))
    dilations = node.get("dilations", [1] * len(kernel))
    x, padding = _padded(node, x.to(weight.dtype), kernel, strides, dilations, 0.0)
    return x, strides, padding, dilations, node.get("group", 1)


def max_pool(node: Node, x: Tensor) -> Tensor:
    """MaxPool, without the indices of the maxima."""
    kernel = node.attributes["kernel_shape"]
    strides = node.get("strides", [1] * len(kernel))
    dilations = node.get("dilations", [1] * len(kernel))
    if len(node.outputs) > 1:
        raise EngineError("the torch engine does not compute the indices of MaxPool")
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded, padding = _padded(node, x, kernel, strides, dilations, lowest, limit=2)
    ceil_mode = bool(node.get("ceil_mode", 0))
    y = _MAX_POOL[len(kernel)](padded, kernel, strides, padding, dilations, ceil_mode)
    return y if padded is x else _starting_before_padding(node, x, y, kernel, strides, dilations)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """AveragePool."""
    kernel = node.attributes["kernel_shape"]
    strides = node.get("strides", [1] * len(kernel))
    ones = [1] * len(kernel)
    if node.get("dilations", ones) != ones:
        raise EngineError("the torch engine has no AveragePool with dilations")
    pool, ceil_mode = _AVERAGE_POOL[len(kernel)], bool(node.get("ceil_mode", 0))
    padded, padding = _padded(node, x, kernel, strides, ones, 0.0, limit=2)
    include_pad = bool(node.get("count_include_pad", 0))
    y = pool(padded, kernel, strides, padding, ceil_mode, include_pad)
    if padded is x:
        return y
    if not include_pad:
        # torch counts what was padded outside of it as data: divide by the share that is not.
        inside, _ = _padded(node, torch.ones_like(x[:1, :1]), kernel, strides, ones, 0.0, limit=2)
        y = y / pool(inside, kernel, strides, padding, ceil_mode, include_pad)
    return _starting_before_padding(node, x, y, kernel, strides, ones)


def _starting_before_padding(
    node: Node,
    x: Tensor,
    y: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Tensor:
    """A pool's output without the windows that start in the padding behind, as ONNX wants it.

    torch leaves them out by itself where it does the padding.

    Args:
        node: the pool.
        x: its input, not padded.
        y: its output, of `x` padded.
        kernel: window size in each spatial dimension.
        strides: likewise.
        dilations: likewise.
    """
    begin, _ = _padding(node, x.shape[2:], kernel, strides, dilations)
    for axis, (before, stride) in enumerate(zip(begin, strides, strict=True), start=2):
        windows = -(-(x.shape[axis] + before) // stride)
        y = y.narrow(axis, 0, min(windows, y.shape[axis]))
    return y


def pad(
    node: Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Pad. Before opset 11 the sizes and the value were attributes."""
    sizes = node.attributes["pads"] if pads is None else pads.tolist()
    touched = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    begin, end = [0] * x.ndim, [0] * x.ndim
    for position, axis in enumerate(touched):
        begin[axis], end[axis] = sizes[position], sizes[position + len(touched)]
    mode = node.get("mode", "constant")
    if mode == "constant":
        fill = node.get("value", 0.0) if value is None else value.item()
        return functional.pad(x, _reversed_pairs(begin, end), value=fill)
    if any(begin[:2] + end[:2]):
        raise EngineError(f"the torch engine pads with mode {mode!r} in spatial dimensions only")
    torch_mode = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode]
    return functional.pad(x, _reversed_pairs(begin[2:], end[2:]), mode=torch_mode)


def _padded(
    node: Node,
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    value: float,
    limit: int | None = None,
) -> tuple[Tensor, list[int]]:
    """Pad `x` as the node says, or leave that to torch where torch can.

    Args:
        node: with the attributes `auto_pad` and `pads`.
        x: shape (N, C, spatial dimensions).
        kernel: window size in each spatial dimension.
        strides: likewise.
        dilations: likewise.
        value: what to pad with.
        limit: torch's pools take no padding above the window size divided by this.

    Returns:
        `x`, padded or as it was, and the padding that is left for torch on both sides.
    """
    begin, end = _padding(node, x.shape[2:], kernel, strides, dilations)
    fits = limit is None or all(p <= k // limit for p, k in zip(begin, kernel, strict=True))
    if begin == end and fits:
        return x, begin
    return functional.pad(x, _reversed_pairs(begin, end), value=value), [0] * len(kernel)


def _padding(
    node: Node,
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Padding before and behind each spatial dimension."""
    rank = len(kernel)
    auto_pad = node.get("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return [0] * rank, [0] * rank
    if auto_pad == "NOTSET":
        pads = node.get("pads", [0] * (2 * rank))
        return list(pads[:rank]), list(pads[rank:])
    totals = []
    for n, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        windows = -(-n // stride)
        totals.append(max(0, (windows - 1) * stride + (k - 1) * dilation + 1 - n))
    smaller = [total // 2 for total in totals]
    larger = [total - half for total, half in zip(totals, smaller, strict=True)]
    return (smaller, larger) if auto_pad == "SAME_UPPER" else (larger, smaller)


def _reversed_pairs(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Padding as torch takes it: the last dimension first, (before, behind) for each."""
    pairs = zip(reversed(begin), reversed(end), strict=True)
    return [size for pair in pairs for size in pair]
