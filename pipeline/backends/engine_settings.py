"""The settings of TensorrtTensor: how a TOML file says what an engine is to be like.

The names are torchpipe's; `model::key_file`, `model::layout`, `model::color`, `output`,
`output_activation`, `skip_bad_images` and those that begin with `calibration_` are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.cpu.cores import threads_per_context
from engine.errors import EngineError
from engine.normalization import PLAIN_PIXELS, Normalization
from engine.onnx_graph.activations import AUTO, OUTPUT_ACTIVATIONS
from engine.onnx_graph.inputs import COLORS, LAYOUTS
from engine.options import BatchProfile, EngineOptions
from engine.tensor_spec import TensorSpec
from pipeline.backends.interface import InstanceConfig
from pipeline.backends.postprocessing import POSTPROCESSOR_NAMES, SPLIT, read_postprocessor
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import (
    BatchShape,
    Setting,
    choice,
    read_batch_shape,
    read_count,
    read_floats,
    read_names,
    read_side,
    read_switch,
    read_text,
)

_MIB_BYTES = 2**20
_JOINED_FILES = re.compile(r"\.onnx\s*&")
# What reaches a model of floats when nothing is fused into it: the pixels as they are.


def read_model(value: Any) -> str:
    """Text, but for files that are joined with "&"."""
    text = read_text(value)
    if _JOINED_FILES.search(text):
        raise ValueError(value)
    return text


def read_batch_shapes(value: Any) -> BatchShape | tuple[BatchShape, ...]:
    """Rows or a shape; or several of them with ";" between, one a profile."""
    if not isinstance(value, str) or ";" not in value:
        return read_batch_shape(value)
    return tuple(read_batch_shape(part) for part in value.split(";"))


def read_precision(value: Any) -> str | None:
    """A precision; None for torchpipe's "best", which leaves the choice to the engine."""
    word = choice("fp32", "fp16", "bf16", "int8", "best")(value)
    return None if word == "best" else word


_SHAPES = (
    'rows, or a shape such as "{}x3x224x224", with "," between those of several inputs, which all '
    'have the same rows; several with ";" between, one an instance, which is written so for what '
    'torchpipe joins with "&", too'
)

LARGEST_BATCH = Setting(
    "max",
    read_batch_shapes,
    _SHAPES.format(4),
    BatchShape(1),
    help="the largest batch",
    unit="rows",
)

ENGINE_SETTINGS = (
    Setting(
        "model",
        read_model,
        'an ONNX file or the name of a packaged model; of files that are joined with "&", each for '
        "batches of one size, any one: its batch is made dynamic",
        help="what the engine runs",
        example="resnet50.onnx",
    ),
    Setting("model::cache", read_text, "a file name", help="keeps the prepared engine"),
    Setting(
        "model::key_file",
        read_text,
        "a file with 64 hexadecimal digits",
        help="the key of a cache named .encrypted",
    ),
    Setting(
        "model::layout",
        choice(*LAYOUTS),
        '"nchw" or "nhwc"',
        help="where the model has its channels: it then takes R, G and B of an image whatever its "
        "file wants, as it does with mean and std",
    ),
    Setting(
        "model::color",
        choice(*COLORS),
        '"rgb" or "bgr"',
        help="in which order it wants them; its items stay R, G, B",
    ),
    Setting(
        "model::timingcache", read_text, "a file name", help="keeps what TensorRT has measured"
    ),
    Setting(
        "max_workspace_size",
        read_count,
        "MiB, at least 1",
        2048,
        help="scratch memory of TensorRT",
        unit="MiB",
    ),
    Setting(
        "min",
        read_batch_shapes,
        _SHAPES.format(1),
        BatchShape(1),
        help="the smallest batch",
        unit="rows",
    ),
    LARGEST_BATCH,
    Setting(
        "mean",
        read_floats,
        'a number a channel, such as "123.675, 116.28, 103.53"',
        help="what is taken from each pixel",
    ),
    Setting(
        "std",
        read_floats,
        'a number a channel, such as "58.395, 57.12, 57.375"',
        help="by what it is divided then",
    ),
    Setting(
        "precision",
        read_precision,
        '"fp32", "fp16", "bf16" or "int8", or "best": what the engine takes by itself',
        help="the numbers that the engine computes with",
    ),
    Setting(
        "precision::fp32",
        read_names,
        "parts of layer names with commas between",
        (),
        help="layers that stay in fp32",
    ),
    Setting(
        "precision::fp16",
        read_names,
        "parts of layer names with commas between",
        (),
        help="layers that run in fp16",
    ),
    Setting(
        "calibration_images",
        read_text,
        "a folder of images",
        help="images like those to come, for int8",
    ),
    Setting(
        "calibration_resize",
        read_side,
        "pixels of a shorter side",
        help="what they are resized to before their middle is cut out, as ResizeCropMat does it",
        unit="pixels",
    ),
    Setting(
        "skip_bad_images",
        read_switch,
        "true or false",
        False,
        help="go on without calibration images that cannot be used, and say which",
    ),
    Setting(
        "output",
        read_text,
        'the name of one of the model\'s outputs, or "auto"',
        help="the output that is served",
    ),
    Setting(
        "output_activation",
        choice(*OUTPUT_ACTIVATIONS),
        '"auto", "softmax", "sigmoid" or "none"',
        AUTO,
        help="how scores are made of a result",
    ),
    Setting(
        "postprocessor",
        read_postprocessor,
        f"one of {POSTPROCESSOR_NAMES}, or a backend that is to run behind the engine",
        SPLIT,
        help="what a result is",
    ),
)


def batch_shapes(settings: Mapping[str, Any]) -> list[tuple[BatchShape, BatchShape]]:
    """`min` and `max` of each profile; the shorter list's last one is repeated.

    Raises:
        PipelineConfigError: a min that is more than its max.
    """
    pairs = _pairs(settings)
    for low, high in pairs:
        shapes = zip(low.item_shapes, high.item_shapes, strict=False)
        if low.rows > high.rows or any(
            small > large for one, other in shapes for small, large in zip(one, other, strict=False)
        ):
            raise PipelineConfigError(f"min = {low} is more than max = {high}")
    return pairs


def _pairs(settings: Mapping[str, Any]) -> list[tuple[BatchShape, BatchShape]]:
    smallest, largest = (
        (value,) if isinstance(value, BatchShape) else value
        for value in (settings["min"], settings["max"])
    )
    return [
        (smallest[min(index, len(smallest) - 1)], largest[min(index, len(largest) - 1)])
        for index in range(max(len(smallest), len(largest)))
    ]


def image_size(pairs: Sequence[tuple[BatchShape, BatchShape]]) -> tuple[int, int] | None:
    """Height and width of the largest image of a model's first input; None where none is named."""
    shapes = [shape.item_shapes[0] for _, shape in pairs if shape.item_shapes]
    # The channels of a file that nothing is fused into may come last.
    sizes = [
        (shape[0], shape[1]) if shape[2] in (1, 3) else (shape[1], shape[2])
        for shape in shapes
        if len(shape) == 3
    ]
    return max(sizes, default=None)


def normalization(settings: Mapping[str, Any]) -> Normalization | None:
    """What `mean` and `std` say; with one of them alone nothing is subtracted, or divided.

    Raises:
        EngineError: values that no model can want.
    """
    mean, std = settings["mean"], settings["std"]
    if mean is None and std is None:
        return None
    return Normalization(
        PLAIN_PIXELS.mean if mean is None else mean, PLAIN_PIXELS.std if std is None else std
    )


def row_limits(
    settings: Mapping[str, Any], inputs: Sequence[TensorSpec]
) -> list[list[tuple[int, int]]]:
    """For each input the smallest and largest size of each dimension of a row.

    They cover all shapes of `min` and `max`, so that every instance takes every item.

    Returns:
        An empty list where none is named, or one does not fit: see `check_shapes`; or where an
        input that leaves sizes open is not among those named.
    """
    named = [shape for pair in _pairs(settings) for shape in pair if shape.item_shapes]
    if not named or not all(_fits(shape, inputs) for shape in named):
        return []
    limits = []
    for index, spec in enumerate(inputs):
        shapes = [shape.item_shapes[index] for shape in named if shape.item_shapes[index]]
        if not shapes and spec.is_open:
            return []
        sizes = zip(*shapes, strict=True) if shapes else ((size,) for size in spec.item_shape)
        limits.append([(min(of_dimension), max(of_dimension)) for of_dimension in sizes])
    return limits


def check_shapes(
    pairs: Sequence[tuple[BatchShape, BatchShape]], inputs: Sequence[TensorSpec]
) -> bool:
    """True where every `min` and `max` has the shape of a model's inputs, or none.

    Raises:
        PipelineConfigError: which, and what the model takes.
    """
    for pair in pairs:
        for name, shape in zip(("min", "max"), pair, strict=True):
            if not _fits(shape, inputs):
                raise PipelineConfigError(f"{name} = {shape}{_misfit(shape, inputs)}")
    return True


def _fits(shape: BatchShape, inputs: Sequence[TensorSpec]) -> bool:
    shapes = shape.item_shapes
    if len(shapes) != len(inputs):
        return not shapes
    return all(_takes(spec, given) for given, spec in zip(shapes, inputs, strict=True))


def _takes(spec: TensorSpec, given: Sequence[int]) -> bool:
    """Whether a row of that shape fits; rows alone leave the shape to the model."""
    return not given or spec.takes(given)


def _misfit(shape: BatchShape, inputs: Sequence[TensorSpec]) -> str:
    """How a shape differs from what fits, to be said behind it."""
    shapes = shape.item_shapes
    if len(shapes) != len(inputs):
        return f" has shapes of {len(shapes)} inputs, the model has {len(inputs)}"
    spec = next(it for given, it in zip(shapes, inputs, strict=True) if not _takes(it, given))
    which = "the model's input" if len(inputs) == 1 else f"input {spec.name!r}"
    return f", but one row of {which} is {spec.rows_text}"


def engine_options(config: InstanceConfig, precision: str) -> EngineOptions:
    """The options of the engine that a node's instances share.

    Args:
        config: one instance of the node.
        precision: what the chosen engine runs.

    Raises:
        PipelineConfigError: settings that contradict each other.
    """
    settings = config.settings
    is_plain = settings["mean"] is None and settings["std"] is None
    profiles = tuple(
        BatchProfile(low.rows, high.rows)
        for low, high in batch_shapes(settings)[: config.instance_num]
    )
    try:
        return EngineOptions(
            precision=precision,
            max_batch_size=max(profile.max_rows for profile in profiles),
            num_contexts=config.instance_num,
            threads_per_context=threads_per_context(config.instance_num),
            device_id=config.device_id,
            cache_path=_path(settings["model::cache"]),
            cache_key_file=_path(settings["model::key_file"]),
            profiles=profiles,
            fp32_layers=settings["precision::fp32"],
            fp16_layers=settings["precision::fp16"],
            calibration_dir=_path(settings["calibration_images"]),
            calibration_normalization=PLAIN_PIXELS if is_plain else None,
            calibration_skips_bad=settings["skip_bad_images"],
            calibration_shorter_side=settings["calibration_resize"],
            timing_cache_path=_path(settings["model::timingcache"]),
            max_workspace_bytes=settings["max_workspace_size"] * _MIB_BYTES,
        )
    except EngineError as error:
        raise PipelineConfigError(str(error)) from error


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
