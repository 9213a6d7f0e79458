"""Convolution, residual and ReLU in one kernel, on NVIDIA GPUs.

cuDNN computes them together, so that the activations cross the memory once instead of two or three
times: ResNet-50 in fp16 takes about half as long. torch has these calls for its own compiler and
TensorRT does the same to every network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from engine.onnx_in_torch.node import Node
from engine.onnx_in_torch.window_operators import conv, conv_arguments

# A domain of our own: no ONNX file has these.
CONV_RELU = "thriftpipe.ConvRelu"
CONV_ADD_RELU = "thriftpipe.ConvAddRelu"


def fuse_convolutions(nodes: Sequence[Node], kept: set[str]) -> list[Node]:
    """Replace Conv, Relu and Conv, Add, Relu by one node each.

    Args:
        nodes: in an order in which they can run.
        kept: tensors that must exist under their names, such as the graph's outputs.

    Returns:
        The nodes, again in an order in which they can run.
    """
    uses = Counter(name for node in nodes for name in node.inputs)
    makers = {name: node for node in nodes for name in node.outputs}
    fused: dict[int, Node] = {}
    absorbed: set[int] = set()

    def only_use(name: str, op: str) -> Node | None:
        """The node that makes `name`, if it is an `op` whose result no other node reads."""
        maker = makers.get(name)
        alone = uses[name] == 1 and name not in kept
        return maker if alone and maker and maker.op == op and id(maker) not in absorbed else None

    for node in nodes:
        if node.op != "Relu":
            continue
        if convolution := only_use(node.inputs[0], "Conv"):
            absorbed.add(id(convolution))
            fused[id(node)] = replace(convolution, op=CONV_RELU, outputs=node.outputs)
        elif addition := only_use(node.inputs[0], "Add"):
            for branch, other in (addition.inputs, addition.inputs[::-1]):
                if convolution := only_use(branch, "Conv"):
                    absorbed |= {id(convolution), id(addition)}
                    inputs = (*convolution.inputs, "")[:3]
                    fused[id(node)] = replace(
                        convolution, op=CONV_ADD_RELU, inputs=(*inputs, other), outputs=node.outputs
                    )
                    break
    # A fused node stands where its Relu stood: what else it reads has been computed by then.
    return [fused.get(id(node), node) for node in nodes if id(node) not in absorbed]


def conv_relu(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """relu(conv(x))."""
    if not _fusable(x, weight):
        return torch.relu(conv(node, x, weight, bias))
    x, strides, padding, dilations, group = conv_arguments(node, x, weight)
    return torch.cudnn_convolution_relu(x, weight, bias, strides, padding, dilations, group)


def conv_add_relu(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor
) -> Tensor:
    """relu(conv(x) + residual)."""
    if not _fusable(x, weight):
        return torch.relu(conv(node, x, weight, bias) + residual)
    x, strides, padding, dilations, group = conv_arguments(node, x, weight)
    sizes = zip(x.shape[2:], weight.shape[2:], strides, padding, dilations, strict=True)
    spatial = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
    if list(residual.shape) != [x.shape[0], weight.shape[0], *spatial]:
        return torch.relu(
            functional.conv2d(x, weight, bias, strides, padding, dilations, group) + residual
        )
    return torch.cudnn_convolution_add_relu(
        x, weight, residual.to(x.dtype), 1.0, bias, strides, padding, dilations, group
    )


def _fusable(x: Tensor, weight: Tensor) -> bool:
    return x.is_cuda and weight.ndim == 4
