"""Quantising a model to int8: a graph with explicit QuantizeLinear and DequantizeLinear nodes.

Such a graph carries its ranges, so that every engine that reads it rounds alike and none has to
calibrate. The ranges come from real images on the way that requests take: random pixels lose the
labels. onnxruntime's static quantiser does the work, as onnxruntime is here anyway; NVIDIA's
modelopt asks for an older onnx and a GPU build of onnxruntime.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engine.atomic_file import make_private_folder, write_atomically
from engine.calibration import CalibrationImages
from engine.interface import EngineError, EngineOptions
from engine.layer_names import layer_name, named_layers, normalizes_pixels
from engine.onnx_model import OnnxModel
from engine.zoo.store import cache_folder

# Raise it when the same model and images give another graph.
_VERSION = 1
_PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
# What stands between products, and would have to go to fp32 and back. The last Softmax is not of
# them: its output would be a number of 8 bits.
_BETWEEN = ["Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu"]
_OLDEST_OPSET = 13
_ERRORS_ONLY = 3

_logger = logging.getLogger(__name__)


def graph_for_cpu(model: OnnxModel, options: EngineOptions) -> bytes:
    """What an engine for the CPU reads: the model as it is, or its int8 graph.

    Raises:
        EngineError: see `quantized_graph`.
    """
    if options.precision != "int8":
        return model.serialized()
    graph = quantized_graph(model, options, symmetric=False)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def quantized_graph(
    model: OnnxModel, options: EngineOptions, *, symmetric: bool
) -> onnx.ModelProto:
    """The model in int8; made once for a model and its images, and kept in the user's cache.

    Args:
        model: takes uint8 pixels, or floats if `options.calibration_normalization` says which.
        options: calibration images, and layers that are left as they are: those of `fp32_layers`
            and of `fp16_layers`.
        symmetric: True for TensorRT, whose zero points are all 0 and which quantises the inputs of
            products only; False for the faster and finer uint8 tensors of engines for the CPU.

    Raises:
        EngineError: no calibration images or too few, a layer that is not there, a model that
            cannot be quantised, or a cache folder that cannot be written.
    """
    images = CalibrationImages(options.calibration_dir)
    feeds = _Feeds(model, images, options)
    excluded = named_layers(model.proto, options.fp32_layers, "precision::fp32")
    excluded |= named_layers(model.proto, options.fp16_layers, "precision::fp16")
    facts = (
        hashlib.sha256(model.serialized()).hexdigest(),
        images.sha256,
        options.calibration_normalization,
        sorted(excluded),
        symmetric,
        onnxruntime.__version__,
        _VERSION,
    )
    identity = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    path = cache_folder() / f"{model.path.stem}-int8-{identity}.onnx"
    if not path.exists():
        _logger.info("quantising %s with %d images (once)", model.name, len(images.paths))
        content = _quantize(model, feeds, excluded, symmetric)
        try:
            make_private_folder(path.parent)
            write_atomically(path, content)
        except OSError as error:
            raise EngineError(
                f"cannot write {path}: {error.strerror}; name another folder in "
                f"THRIFTPIPE_CACHE_DIR"
            ) from error
    return onnx.load(path)


class _Feeds:
    """What the model's one input takes for each view of the calibration images."""

    def __init__(self, model: OnnxModel, images: CalibrationImages, options: EngineOptions) -> None:
        self._spec = model.inputs[0]
        self._images = images
        self._normalization = options.calibration_normalization
        if len(model.inputs) != 1 or model.input_size is None:
            raise EngineError(
                f"{model.path} cannot be calibrated with images: it must take one image of a "
                f"fixed size"
            )
        self._size = model.input_size
        self._takes_pixels = self._spec.dtype == torch.uint8
        if not self._takes_pixels and self._normalization is None:
            raise EngineError(
                f"{model.path} takes floats: to calibrate it with images, give mean and std"
            )

    def __iter__(self) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        for pixels in self._images.views(*self._size):
            yield {self._spec.name: self._as_input(pixels)}

    def _as_input(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The pixels, (1, height, width, 3), as the model wants them."""
        if self._takes_pixels or self._normalization is None:
            ordered = pixels if self._spec.channels_last else pixels.transpose(0, 3, 1, 2)
            return np.ascontiguousarray(ordered)
        mean, std = (np.array(v, np.float32) for v in self._normalization.per_channel())
        normalized = ((pixels - mean) / std).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(normalized, dtype=np.float32)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the feeds to onnxruntime, one a call."""

    def __init__(self, feeds: _Feeds) -> None:
        self._remaining = iter(feeds)

    def get_next(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """The next one, or None after the last."""
        return next(self._remaining, None)


def _quantize(model: OnnxModel, feeds: _Feeds, excluded: set[str], symmetric: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        folded, quantized = Path(folder, "folded.onnx"), Path(folder, "int8.onnx")
        try:
            proto = _folded(_with_names(_of_opset(model.proto)), folded)
            left_as_they_are = excluded | {
                layer_name(node) for node in proto.graph.node if normalizes_pixels(node)
            }
            with _without_remarks():
                quantize_static(
                    proto,
                    quantized,
                    _Reader(feeds),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=_PRODUCTS if symmetric else [*_PRODUCTS, *_BETWEEN],
                    nodes_to_exclude=sorted(left_as_they_are),
                    per_channel=True,
                    activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    extra_options=_SYMMETRIC if symmetric else {},
                )
        except EngineError:
            raise
        except Exception as error:
            # The quantiser and onnxruntime raise classes that share no other base.
            raise EngineError(
                f"{model.path} cannot be quantised: {str(error).strip().splitlines()[0]}"
            ) from error
        return quantized.read_bytes()


# TensorRT fuses a product with the additions and activations behind it if nothing stands between,
# keeps biases in floating point, and folds the scales of weights by itself.
_SYMMETRIC = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "OpTypesToExcludeOutputQuantization": _PRODUCTS,
    # Only biases of 32 bits need weights whose scales fit them.
    "QDQDisableWeightAdjustForInt32Bias": True,
}


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep out of the log what the quantiser says about every channel, on the root logger."""
    root = logging.getLogger()

    def is_from_elsewhere(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in Path(record.pathname).parts

    root.addFilter(is_from_elsewhere)
    try:
        yield
    finally:
        root.removeFilter(is_from_elsewhere)


def _of_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, in an operator set in which scales may be one a channel."""
    (version,) = (it.version for it in proto.opset_import if it.domain in ("", "ai.onnx"))
    if version >= _OLDEST_OPSET:
        return proto
    return onnx.version_converter.convert_version(proto, _OLDEST_OPSET)


def _with_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name, as the quantiser excludes nodes by name."""
    named = onnx.ModelProto()
    named.CopyFrom(proto)
    for node in named.graph.node:
        node.name = layer_name(node)
    return named


def _folded(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model with constants and BatchNormalization folded: what is gone needs no range."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)
