"""What a model wants of its pixels, as the first layers of its graph: order, grey, mean, std."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.normalization import Normalization
from engine.onnx_graph.image_format import ImageFormat
from engine.onnx_graph.inputs import BGR, GREY, NCHW
from engine.onnx_graph.layer_names import layer_name
from engine.onnx_graph.tensors import true_inputs

# What may stand before a graph's first arithmetic, and which arithmetic normalizes.
_PASSING_OPS = {
    *("Cast", "Concat", "Gather", "Identity", "Pad", "Resize", "Slice", "Split", "Transpose"),
    *("QuantizeLinear", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze"),
}
_ARITHMETIC_OPS = {"Add", "Div", "Mul", "Sub"}
_SCALING_OPS = {*_ARITHMETIC_OPS, "BatchNormalization", "InstanceNormalization"}
_LAYER_PREFIX = "thriftpipe/"
# Of R, G and B in a grey level, as OpenCV, Pillow and torchvision weigh them (ITU-R BT.601).
_GREY_WEIGHTS = (0.299, 0.587, 0.114)


def prepares_pixels(node: onnx.NodeProto) -> bool:
    """Whether a layer is one of those that this module adds."""
    return layer_name(node).startswith(_LAYER_PREFIX)


def scales_its_image(proto: onnx.ModelProto) -> bool:
    """Whether a model takes pixels of 0..255: bytes, or floats that its graph scales first."""
    inputs = true_inputs(proto)
    if any(value.type.tensor_type.elem_type == TensorProto.UINT8 for value in inputs):
        return True
    return any(op_type in _SCALING_OPS for op_type in _first_computations(proto))


def first_arithmetic(proto: onnx.ModelProto) -> str:
    """The operator by which a graph seems to normalize its image itself, or ""."""
    found = (op_type for op_type in _first_computations(proto) if op_type in _ARITHMETIC_OPS)
    return next(found, "")


def _first_computations(proto: onnx.ModelProto) -> Iterator[str]:
    """The types of the nodes that are the first to change an input's values."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ahead = [value.name for value in true_inputs(proto)]
    seen = set(ahead)
    while ahead:
        for node in readers.get(ahead.pop(), ()):
            if node.op_type not in _PASSING_OPS:
                yield node.op_type
                continue
            ahead += [name for name in node.output if name not in seen]
            seen.update(node.output)


def fuse_format(
    proto: onnx.ModelProto, input_name: str, rgb_name: str, image: ImageFormat
) -> onnx.ModelProto:
    """A copy of a model that takes R, G and B, whatever it wants of an image.

    Args:
        proto: a model with one input of four dimensions.
        input_name: that input; in the copy it is an intermediate tensor.
        rgb_name: what the copy's input is to be called. Floats are of shape (N, 3, H, W), or
            (N, H, W, 3) where the model has its channels last and three of them; bytes always of
            the latter.
        image: how the model takes its image.
    """
    value = _input(proto, input_name)
    element_type = value.type.tensor_type.elem_type
    channels_first = _channels_first(value, image)
    comes_last = image.takes_bytes or (image.layout != NCHW and image.color != GREY)
    steps = _Steps(input_name, rgb_name)
    axis = 3 if comes_last else 1
    if image.takes_bytes and (image.layout == NCHW or image.color == GREY):
        steps.add("Transpose", "nchw", perm=[0, 3, 1, 2])
        axis = 1
    if image.color == BGR:
        order = steps.constant("order", np.array([2, 1, 0], np.int64))
        steps.add("Gather", "bgr", order, axis=axis)
    if image.color == GREY:
        if element_type != TensorProto.FLOAT:
            steps.add("Cast", "float", to=TensorProto.FLOAT)
        # One number of each pixel, so that mean and std may come before it or behind it.
        weights = np.array(_GREY_WEIGHTS, np.float32).reshape(1, 3, 1, 1)
        steps.add("Conv", "grey", steps.constant("weights", weights))
        if image.takes_bytes:
            # To the nearest level: a Cast cuts off, and not all operator sets have Round. In bf16
            # 255.5 would be 256.
            steps.add("Add", "raised", steps.constant("half", np.array(0.5, np.float32)))
            if any(it.domain in ("", "ai.onnx") and it.version < 8 for it in proto.opset_import):
                # There Min takes tensors of one shape only.
                steps.add("Clip", "level", max=255.0)
            else:
                steps.add("Min", "level", steps.constant("white", np.array(255, np.float32)))
        if element_type != TensorProto.FLOAT:
            steps.add("Cast", "cast", to=element_type)
        if image.layout != NCHW:
            steps.add("Transpose", "nhwc", perm=[0, 2, 3, 1])
    batch, _, height, width = channels_first
    shape = [batch, height, width, 3] if comes_last else [batch, 3, height, width]
    return steps.before(proto, value, element_type, shape)


def fuse_normalization(
    proto: onnx.ModelProto,
    input_name: str,
    pixels_name: str,
    normalization: Normalization,
    *,
    channels_last: bool = False,
) -> onnx.ModelProto:
    """A copy of a model with the normalization in front of its graph.

    Args:
        proto: a model with one floating-point input of shape (N, 3, H, W).
        input_name: that input; in the copy it is an intermediate tensor.
        pixels_name: what the copy's input is to be called: uint8 of shape (N, H, W, 3).
        normalization: what becomes one multiplication and one addition.
        channels_last: whether the input's shape is (N, H, W, 3) instead.
    """
    value = _input(proto, input_name)
    element_type = value.type.tensor_type.elem_type
    sizes = _sizes(value)
    steps = _Steps(input_name, pixels_name)
    if not channels_last:
        # It comes first because it moves a quarter of the bytes there.
        steps.add("Transpose", "nchw", perm=[0, 3, 1, 2])
        batch, _, height, width = sizes
        sizes = [batch, height, width, 3]
    steps.add("Cast", "float", to=TensorProto.FLOAT)
    mean, std = (np.array(v, dtype=np.float64) for v in normalization.per_channel())
    numbers = (1, 1, 1, 3) if channels_last else (1, 3, 1, 1)
    factor, offset = (
        steps.constant(name, values.astype(np.float32).reshape(numbers))
        for name, values in (("factor", 1 / std), ("offset", -mean / std))
    )
    steps.add("Mul", "scaled", factor)
    steps.add("Add", "normalized", offset)
    # To the old input's own type; engines drop it where nothing changes.
    steps.add("Cast", "cast", to=element_type)
    return steps.before(proto, value, TensorProto.UINT8, sizes)


class _Steps:
    """A chain of layers to be put between a new input and the old one.

    Args:
        input_name: the old input.
        new_name: the new input.
    """

    def __init__(self, input_name: str, new_name: str) -> None:
        self._input_name = input_name
        self._new_name = new_name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def add(self, op_type: str, result: str, *others: str, **attributes: Any) -> None:
        """Append a layer that reads the output of the one before it, and the others."""
        source = self._nodes[-1].output[0] if self._nodes else self._new_name
        output = f"{_LAYER_PREFIX}{self._input_name}/{result}"
        node = helper.make_node(op_type, [source, *others], [output], output, **attributes)
        self._nodes.append(node)

    def constant(self, name: str, values: np.ndarray[Any, Any]) -> str:
        """A constant for a layer; its name."""
        full = f"{_LAYER_PREFIX}{self._input_name}/{name}"
        self._constants.append(numpy_helper.from_array(values, full))
        return full

    def before(
        self,
        proto: onnx.ModelProto,
        value: onnx.ValueInfoProto,
        element_type: int,
        shape: Sequence[int | str],
    ) -> onnx.ModelProto:
        """A copy of the model that begins with the layers.

        Args:
            proto: the model.
            value: its input.
            element_type: of the new input.
            shape: of the new input.
        """
        fused = onnx.ModelProto()
        fused.CopyFrom(proto)
        graph = fused.graph
        self._nodes[-1].output[0] = self._input_name
        kept = list(graph.node)
        del graph.node[:]
        graph.node.extend([*self._nodes, *kept])
        graph.initializer.extend(self._constants)
        graph.input.remove(value)
        graph.input.insert(0, helper.make_tensor_value_info(self._new_name, element_type, shape))
        return fused


def _input(proto: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    (value,) = (it for it in true_inputs(proto) if it.name == name)
    return value


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    ]


def _channels_first(value: onnx.ValueInfoProto, image: ImageFormat) -> list[int | str]:
    batch, *row = _sizes(value)
    return [batch, *row] if image.layout == NCHW else [batch, row[2], row[0], row[1]]
