"""An ONNX classifier: its identity, its tensors, and the same model with mean and std fused in."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import onnx
import torch
from onnx import TensorProto

from engine.interface import EngineError, TensorSpec
from engine.normalization import (
    IMAGENET_NORMALIZATION,
    Normalization,
    fuse_normalization,
    read_normalization,
)
from engine.onnx_batch import make_batch_dynamic, set_input_size
from engine.onnx_file import read_onnx

__all__ = ["IMAGENET_NORMALIZATION", "Normalization", "OnnxModel"]

_TORCH_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
# What may stand between a Softmax and the output without changing what the numbers mean.
_TRANSPARENT_OPS = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze"}


class OnnxModel:
    """An ONNX model in memory.

    Attributes:
        path: the file it was read from.
        sha256: of that file (and of its external data), also after mean and std were fused in:
            it says which weights run.
        inputs: what the graph takes, the batch dimension first.
        outputs: what the graph gives.
    """

    def __init__(self, path: Path, sha256: str, proto: onnx.ModelProto) -> None:
        self.path = path
        self.sha256 = sha256
        self._proto = proto
        stored = {tensor.name for tensor in proto.graph.initializer}
        # Files of IR version 3 list the weights among the inputs, too.
        self.inputs = tuple(_spec(v) for v in proto.graph.input if v.name not in stored)
        self.outputs = tuple(_spec(v) for v in proto.graph.output)

    @classmethod
    def load(cls, path: str | Path) -> OnnxModel:
        """Read a model from an ONNX file.

        A batch dimension that the file fixes is made dynamic where the graph allows it.

        Raises:
            EngineError: no such file, not an ONNX model, external data missing, a batch dimension
                that is fixed and cannot be freed, or tensors of a type that no engine takes.
        """
        path = Path(path)
        proto, sha256 = read_onnx(path)
        return cls(path, sha256, make_batch_dynamic(proto, path))

    @property
    def name(self) -> str:
        """The name of the model's file."""
        return self.path.name

    @property
    def proto(self) -> onnx.ModelProto:
        """The graph. It is shared: do not change it."""
        return self._proto

    @cached_property
    def declared_normalization(self) -> Normalization | None:
        """The normalization that the file's metadata declares, or None."""
        return read_normalization(self._proto, self.path)

    @cached_property
    def outputs_probabilities(self) -> bool:
        """True where the first output is that of a Softmax or Sigmoid."""
        producers = {name: node for node in self._proto.graph.node for name in node.output}
        node = producers.get(self.outputs[0].name)
        while node is not None and node.op_type in _TRANSPARENT_OPS:
            node = producers.get(node.input[0])
        return node is not None and node.op_type in ("Softmax", "Sigmoid")

    @property
    def num_classes(self) -> int:
        """How many classes the first output scores.

        Raises:
            EngineError: the output is not one row of scores per image.
        """
        classes, *rest = self.outputs[0].item_shape or (None,)
        if classes is None or any(size != 1 for size in rest):
            raise EngineError(
                f"{self.path} is not a classifier: its output {self.outputs[0].name!r} has shape "
                f"{_shape_text(self.outputs[0].shape)}, expected N x classes"
            )
        return classes

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the image that the first input takes, or None where any will do."""
        shape = self.inputs[0].shape
        if len(shape) != 4 or shape[2] is None or shape[3] is None:
            return None
        return shape[2], shape[3]

    def serialized(self) -> bytes:
        """The model as an engine reads it: one protobuf message with all weights inside."""
        content: bytes = self._proto.SerializeToString(deterministic=True)
        return content

    def with_input_size(self, height: int, width: int) -> OnnxModel:
        """The same model for images of one size, for a file that leaves the size open.

        Raises:
            EngineError: the file fixes another size, or its graph cannot take this one.
        """
        if self.input_size == (height, width):
            return self
        self._image_input()
        proto = set_input_size(self._proto, self.inputs[0].name, height, width, self.path)
        return OnnxModel(self.path, self.sha256, proto)

    def with_uint8_input(self, normalization: Normalization) -> OnnxModel:
        """The same model with the normalization in front of its graph.

        Args:
            normalization: mean and std of R, G and B in units of 0..255.

        Returns:
            A model whose input takes uint8 RGB pixels: logical shape (N, 3, H, W), in memory
            N, H, W, C, as image decoders leave them.

        Raises:
            EngineError: the model does not take one floating-point image of 3 channels.
        """
        spec = self._image_input()
        pixels = f"{spec.name}_uint8"
        proto = fuse_normalization(self._proto, spec.name, pixels, normalization)
        fused = OnnxModel(self.path, self.sha256, proto)
        fused.inputs = (TensorSpec(pixels, torch.uint8, spec.shape, channels_last=True),)
        return fused

    def _image_input(self) -> TensorSpec:
        """The one input, which takes floating-point images of 3 channels."""
        described = ", ".join(
            f"{spec.name!r} {str(spec.dtype).removeprefix('torch.')} {_shape_text(spec.shape)}"
            for spec in self.inputs
        )
        spec = self.inputs[0]
        is_image = len(spec.shape) == 4 and spec.shape[1] == 3 and spec.dtype.is_floating_point
        if len(self.inputs) != 1 or not is_image or spec.channels_last:
            raise EngineError(
                f"{self.path} must take one floating-point image of shape N x 3 x height x width; "
                f"it takes {described}"
            )
        return spec


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    if (dtype := _TORCH_DTYPES.get(tensor.elem_type)) is None:
        raise EngineError(f"tensor {value.name!r} has an element type that no engine takes")
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise EngineError(f"tensor {value.name!r} has no shape with a batch dimension in the file")
    sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(value.name, dtype, tuple(sizes))


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return " x ".join("N" if size is None else str(size) for size in shape)
