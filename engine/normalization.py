"""Mean and std of a model's pixels: their values, where a file declares them, and fusing them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.interface import EngineError

_MEAN_KEY, _STD_KEY = "thriftpipe.mean", "thriftpipe.std"


@dataclass(frozen=True)
class Normalization:
    """What a model expects of its pixels: (value - mean) / std, in units of 0..255.

    Attributes:
        mean: one value, or one for each of R, G and B.
        std: likewise; positive.

    Raises:
        EngineError: another number of values, one that is not finite, or a std that is not
            positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3):
                raise EngineError(f"{field} takes 1 value or 3 (R, G, B), got {len(values)}")
            if not all(np.isfinite(values)):
                raise EngineError(f"{field} takes finite numbers, got {_join(values)}")
        if min(self.std) <= 0:
            raise EngineError(f"std must be positive, got {_join(self.std)}")

    def per_channel(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std with three values each."""
        return self.mean * (3 // len(self.mean)), self.std * (3 // len(self.std))


IMAGENET_NORMALIZATION = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def declare_normalization(proto: onnx.ModelProto, normalization: Normalization) -> None:
    """Write a normalization into a model's metadata, where `read_normalization` finds it."""
    helper.set_model_props(
        proto,
        {_MEAN_KEY: _join(normalization.mean), _STD_KEY: _join(normalization.std)},
    )


def read_normalization(proto: onnx.ModelProto, path: Path) -> Normalization | None:
    """The normalization that a model's metadata declares, or None.

    Args:
        proto: the model.
        path: its file, for the error message.

    Raises:
        EngineError: the metadata holds no numbers, or ones that are no normalization.
    """
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if _MEAN_KEY not in metadata or _STD_KEY not in metadata:
        return None
    try:
        mean, std = (
            tuple(float(text) for text in metadata[key].split(",")) for key in (_MEAN_KEY, _STD_KEY)
        )
    except ValueError as error:
        raise EngineError(f"{path}: {_MEAN_KEY} or {_STD_KEY}: {error}") from error
    return Normalization(mean, std)


def fuse_normalization(
    proto: onnx.ModelProto, input_name: str, pixels_name: str, normalization: Normalization
) -> onnx.ModelProto:
    """A copy of a model with the normalization in front of its graph.

    Args:
        proto: a model with one floating-point input of shape (N, 3, H, W).
        input_name: that input; in the copy it is an intermediate tensor.
        pixels_name: what the copy's input is to be called: uint8 of shape (N, H, W, 3).
        normalization: what becomes one multiplication and one addition.
    """
    fused = onnx.ModelProto()
    fused.CopyFrom(proto)
    graph = fused.graph
    (value,) = (v for v in graph.input if v.name == input_name)
    element_type = value.type.tensor_type.elem_type
    batch, _, height, width = (
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    )
    step = f"thriftpipe/{input_name}"
    # The transpose comes first because it moves a quarter of the bytes there.
    nodes = [
        helper.make_node("Transpose", [pixels_name], [f"{step}/nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [f"{step}/nchw"], [f"{step}/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{step}/float", f"{step}/factor"], [f"{step}/scaled"]),
        helper.make_node("Add", [f"{step}/scaled", f"{step}/offset"], [f"{step}/normalized"]),
        # To the old input's own type; engines drop it where nothing changes.
        helper.make_node("Cast", [f"{step}/normalized"], [input_name], to=element_type),
    ]
    for node in nodes:
        node.name = node.output[0]
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])

    mean, std = (np.array(v, dtype=np.float64) for v in normalization.per_channel())
    graph.initializer.extend(
        numpy_helper.from_array(numbers.astype(np.float32).reshape(1, 3, 1, 1), f"{step}/{name}")
        for name, numbers in (("factor", 1 / std), ("offset", -mean / std))
    )
    graph.input.remove(value)
    shape = [batch, height, width, 3]
    graph.input.insert(0, helper.make_tensor_value_info(pixels_name, TensorProto.UINT8, shape))
    return fused


def _join(values: tuple[float, ...]) -> str:
    return ",".join(str(value) for value in values)
