"""Rounding the weights of a model to 8 or 7 bits with the least error of what they compute.

How the inputs of a product go together is learnt from the calibration images. What the graph costs
when it runs does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from engine.int8.product import Patches, Product, vectors
from engine.onnx_graph.layer_names import layer_name
from engine.onnx_graph.optimization import cpu_session

_MAX_MOMENTS_BYTES = 256 * 1024 * 1024

Feed = Mapping[str, npt.NDArray[Any]]


@dataclass
class RoundedWeights:
    """A model whose weights lie on the steps of their channels.

    Attributes:
        proto: the model.
        bounds: by the name of a weight the axis of its channels, and what each channel's largest
            step stands for.
    """

    proto: onnx.ModelProto
    bounds: dict[str, tuple[int, npt.NDArray[np.float64]]]


def round_weights(
    proto: onnx.ModelProto, feeds: Iterable[Feed], excluded: set[str], largest: int
) -> RoundedWeights:
    """A copy of the model with rounded weights, and biases that make up for the mean error.

    Args:
        proto: the model; each node has a name.
        feeds: what it takes for each calibration image.
        excluded: names of nodes whose weights stay as they are.
        largest: the largest number that a weight becomes, 127 or 64.
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(proto)
    bounds = {}
    with _one_thread():
        for part in _parts(_products(rounded, excluded)):
            _observe(proto, feeds, part)
            for product in part:
                bounds[product.weight.name] = (product.channel_axis, product.round(largest))
    return RoundedWeights(rounded, bounds)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch in this thread: most matrices are too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _products(proto: onnx.ModelProto, excluded: set[str]) -> Iterator[Product]:
    """The products with constant weights of their own."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    uses = Counter(name for node in proto.graph.node for name in node.input)
    for node in proto.graph.node:
        weight, bias = (*map(constants.get, node.input[1:3]), None, None)[:2]
        if weight is None or layer_name(node) in excluded:
            continue
        if uses[weight.name] > 1 or (bias is not None and uses[bias.name] > 1):
            continue
        product = _product(node, weight, bias)
        if product is not None:
            yield product


def _product(
    node: onnx.NodeProto, weight: onnx.TensorProto, bias: onnx.TensorProto | None
) -> Product | None:
    """What a node computes with its weights; None where those stay as they are."""
    values = torch.from_numpy(numpy_helper.to_array(weight).copy())
    if values.dtype != torch.float32:
        return None
    attributes = {it.name: onnx.helper.get_attribute_value(it) for it in node.attribute}
    padded = attributes.pop("auto_pad", b"NOTSET") != b"NOTSET"
    if node.op_type == "Conv" and values.ndim == 4 and not padded:
        groups = attributes.get("group", 1)
        rows = values.reshape(groups, values.shape[0] // groups, -1)
        return Product(node, weight, bias, rows, 0, Patches(values, groups, attributes))
    if node.op_type == "MatMul" and values.ndim == 2:
        return Product(node, weight, None, values.T[None], 1, vectors)
    if node.op_type == "Gemm" and _is_plain(attributes):
        axis = 0 if attributes.get("transB") else 1
        rows = (values.T if axis else values)[None]
        return Product(node, weight, bias, rows, axis, vectors)
    return None


def _is_plain(attributes: Mapping[str, Any]) -> bool:
    """Whether a Gemm adds its bias to the product of its input, neither of them changed."""
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return all(attributes.get(name, value) == value for name, value in plain.items())


def _parts(products: Iterable[Product]) -> Iterator[list[Product]]:
    """The products, as many at a time as the memory allows."""
    part: list[Product] = []
    for product in products:
        if part and sum(it.moments_bytes for it in [*part, product]) > _MAX_MOMENTS_BYTES:
            yield part
            part = []
        part.append(product)
    if part:
        yield part


def _observe(proto: onnx.ModelProto, feeds: Iterable[Feed], products: Sequence[Product]) -> None:
    """Show the products what enters them."""
    inputs = {value.name for value in proto.graph.input}
    wanted = sorted({it.node.input[0] for it in products} - inputs)
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=it) for it in wanted if it not in known)
    session = cpu_session(watched.SerializeToString())
    for feed in feeds:
        # An empty list would ask for all outputs.
        seen = session.run(wanted, dict(feed)) if wanted else []
        values = {**feed, **dict(zip(wanted, seen, strict=True))}
        for product in products:
            product.observe(values[product.node.input[0]])
