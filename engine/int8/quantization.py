"""Quantising a model to int8: a graph with explicit QuantizeLinear and DequantizeLinear nodes.

Such a graph carries its ranges, so that every engine that reads it rounds alike and none has to
calibrate. The ranges come from real images on the way that requests take: random pixels lose the
labels. `engine.int8.weight_rounding` chooses the weights; onnxruntime's static quantiser does
the rest, as onnxruntime is here anyway; NVIDIA's modelopt asks for an older onnx and a GPU build of
onnxruntime.
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
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engine.cache.checksummed_file import kept_or_made
from engine.cache.folders import cache_folder
from engine.cpu.vnni import LARGEST_OF_7_BITS, LARGEST_OF_8_BITS
from engine.errors import EngineError
from engine.int8.calibration import CalibrationFeeds, calibration_images
from engine.int8.product import WEIGHT_ROUNDING
from engine.int8.weight_rounding import round_weights
from engine.onnx_graph.file import MAX_MODEL_BYTES
from engine.onnx_graph.fused_input import prepares_pixels
from engine.onnx_graph.layer_names import layer_name, named_layers
from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.optimization import optimized
from engine.options import EngineOptions
from interfaces.error_text import first_line

# Raise it when the same model, images and methods give another graph.
_VERSION = 2
_ACTIVATION_RANGES = CalibrationMethod.MinMax
_PRODUCTS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
# What stands between products, and would have to go to fp32 and back. The last Softmax is not of
# them: its output would be a number of 8 bits.
_BETWEEN = ["Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu"]
_OLDEST_OPSET = 13

_logger = logging.getLogger(__name__)


def quantized_graph(
    model: OnnxModel,
    options: EngineOptions,
    *,
    symmetric: bool,
    largest_weight: int = LARGEST_OF_8_BITS,
) -> onnx.ModelProto:
    """The model in int8; made once for a model and its images, and kept in the user's cache.

    Args:
        model: takes uint8 pixels, or floats if `options.calibration_normalization` says which.
        options: calibration images, and layers that are left as they are: those of `fp32_layers`
            and of `fp16_layers`.
        symmetric: True for TensorRT, whose zero points are all 0 and which quantises the inputs of
            products only; False for the faster and finer uint8 tensors of engines for the CPU.
        largest_weight: 127, or 64 for weights of 7 bits.

    Raises:
        EngineError: no calibration images or too few, a layer that is not there, or a model that
            cannot be quantised.
    """
    images = calibration_images(options)
    feeds = CalibrationFeeds(
        model, images, options.calibration_normalization, options.calibration_shorter_side
    )
    excluded = named_layers(model.proto, options.fp32_layers, "precision::fp32")
    excluded |= named_layers(model.proto, options.fp16_layers, "precision::fp16")
    facts = (
        hashlib.sha256(model.serialized()).hexdigest(),
        images.sha256,
        options.calibration_normalization,
        *filter(None, [options.calibration_shorter_side]),
        sorted(excluded),
        symmetric,
        largest_weight,
        _ACTIVATION_RANGES.name,
        WEIGHT_ROUNDING,
        onnxruntime.__version__,
        torch.__version__,
        _VERSION,
    )
    identity = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    path = cache_folder() / f"{model.path.stem}-int8-{identity}.onnx"
    content = kept_or_made(
        path,
        MAX_MODEL_BYTES,
        lambda: _quantize(model, feeds, excluded, symmetric, largest_weight),
        f"quantising {model.name} with {len(images.paths)} images",
    )
    return onnx.load_model_from_string(content)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the feeds to onnxruntime, one a call."""

    def __init__(self, feeds: CalibrationFeeds) -> None:
        self._remaining = iter(feeds)

    def get_next(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """The next one, or None after the last."""
        return next(self._remaining, None)


def _quantize(
    model: OnnxModel,
    feeds: CalibrationFeeds,
    excluded: set[str],
    symmetric: bool,
    largest_weight: int,
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder, "int8.onnx")
        try:
            proto = _prepared(model.proto)
            left_as_they_are = excluded | {
                layer_name(node) for node in proto.graph.node if prepares_pixels(node)
            }
            rounded = round_weights(proto, feeds, left_as_they_are, largest_weight)
            with _without_remarks():
                quantize_static(
                    rounded.proto,
                    quantized,
                    _Reader(feeds),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=_PRODUCTS if symmetric else [*_PRODUCTS, *_BETWEEN],
                    nodes_to_exclude=sorted(left_as_they_are),
                    per_channel=True,
                    activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    reduce_range=largest_weight == LARGEST_OF_7_BITS,
                    calibrate_method=_ACTIVATION_RANGES,
                    extra_options={
                        **(_SYMMETRIC if symmetric else {}),
                        "TensorQuantOverrides": _overrides(rounded.bounds),
                    },
                )
        except EngineError:
            raise
        except Exception as error:
            # The quantiser and onnxruntime raise classes that share no other base.
            raise EngineError(f"{model.path} cannot be quantised: {first_line(error)}") from error
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


def _overrides(
    bounds: Mapping[str, tuple[int, npt.NDArray[np.float64]]],
) -> dict[str, list[dict[str, Any]]]:
    """The quantiser's settings that keep the steps on which the weights were rounded."""
    return {
        name: [{"axis": axis, "rmin": -bound, "rmax": bound} for bound in values.astype(np.float32)]
        for name, (axis, values) in bounds.items()
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


def _prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name, and constants and BatchNormalization are folded.

    The quantiser excludes nodes by name, and what is gone needs no range.
    """
    named = onnx.ModelProto()
    named.CopyFrom(_of_opset(proto))
    for node in named.graph.node:
        node.name = layer_name(node)
    content = optimized(named.SerializeToString(), for_this_cpu=False)
    return onnx.load_model_from_string(content)


def _of_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, in an operator set in which scales may be one a channel."""
    (version,) = (it.version for it in proto.opset_import if it.domain in ("", "ai.onnx"))
    if version >= _OLDEST_OPSET:
        return proto
    return onnx.version_converter.convert_version(proto, _OLDEST_OPSET)
