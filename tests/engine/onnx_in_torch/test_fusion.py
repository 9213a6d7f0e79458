"""Fused nodes give what the single ones give, and only what may be fused is."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from engine.onnx_graph.model import OnnxModel
from engine.onnx_in_torch.conversion import OnnxModule
from engine.onnx_in_torch.fusion import (
    CONV_ADD_RELU,
    CONV_RELU,
    conv_add_relu,
    conv_relu,
    fuse_convolutions,
)
from engine.onnx_in_torch.node import Node, read_nodes

INPUTS = torch.rand((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))


def node(op: str, inputs: str, output: str, **attributes: object) -> Node:
    return Node(output, op, tuple(inputs.split()), (output,), dict(attributes), 17)


def ops(nodes: list[Node]) -> list[str]:
    return [one.op for one in nodes]


def test_every_relu_of_resnet50_is_fused(resnet50: OnnxModel) -> None:
    counts = Counter(ops(fuse_convolutions(read_nodes(resnet50.proto), {"scores"})))
    assert counts[CONV_RELU] == 33
    assert counts[CONV_ADD_RELU] == 16
    assert counts["Conv"] == 4
    assert counts["Relu"] == 0


def test_the_network_computes_the_same(resnet50: OnnxModel) -> None:
    with torch.inference_mode():
        (plain,) = OnnxModule(resnet50.proto)(INPUTS)
        (fused,) = OnnxModule(resnet50.proto, fuse=True)(INPUTS)
    torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize(
    ("nodes", "kept"),
    [
        # Another node reads what the convolution gives.
        ([("Conv", "x w", "c"), ("Relu", "c", "r"), ("Add", "c r", "out")], {"out"}),
        # It is an output of the graph.
        ([("Conv", "x w", "c"), ("Relu", "c", "r")], {"c", "r"}),
        # The sum is read twice.
        (
            [("Conv", "x w", "c"), ("Add", "c x", "a"), ("Relu", "a", "r"), ("Mul", "a r", "out")],
            {"out"},
        ),
        # Nothing to fuse with.
        ([("Gemm", "x w", "c"), ("Relu", "c", "r")], {"r"}),
        ([("Relu", "x", "r")], {"r"}),
    ],
)
def test_what_another_node_reads_stays(nodes: list[tuple[str, str, str]], kept: set[str]) -> None:
    graph = [node(*one) for one in nodes]
    assert fuse_convolutions(graph, kept) == graph


def test_one_of_two_convolutions_takes_the_sum_and_runs_after_the_other() -> None:
    graph = [
        node("Conv", "x w1 b1", "left"),
        node("Conv", "x w2", "right"),
        node("Add", "left right", "sum"),
        node("Relu", "sum", "out"),
    ]
    fused = fuse_convolutions(graph, {"out"})
    assert ops(fused) == ["Conv", CONV_ADD_RELU]
    assert fused[1].inputs == ("x", "w1", "b1", "right")


def test_without_a_bias_and_with_a_residual_that_is_spread() -> None:
    """The operators by themselves, on a CPU: strides, padding on one side only, broadcasting."""
    convolution = nn.Conv2d(3, 4, 3, stride=2, bias=False)
    x = torch.rand((1, 3, 9, 9))
    weight = convolution.weight.detach()
    one = node("Conv", "x w", "c", strides=[2, 2], pads=[0, 0, 1, 1])
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    wanted = convolution(padded).detach()
    torch.testing.assert_close(conv_relu(one, x, weight), wanted.relu())
    spread = torch.rand((1, 4, 1, 1))
    torch.testing.assert_close(
        conv_add_relu(one, x, weight, None, spread), (wanted + spread).relu()
    )
