"""How a model takes its image: which dimension is the channels, how many, in which order and type.

Engines here take R, G and B of an image as (N, 3, height, width). What a file wants otherwise is
found in the file, or named by its user, and becomes the first layers of its graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch

from engine.errors import EngineError
from engine.onnx_graph.inputs import BGR, GREY, LAYOUTS, NCHW, NHWC, RGB
from engine.onnx_graph.tensors import true_inputs
from engine.tensor_spec import TensorSpec

# ONNX's own names: of a model's metadata, and of a dimension (onnx/docs/MetadataProps.md,
# onnx/docs/DimensionDenotation.md).
_PIXEL_FORMAT_KEY = "Image.BitmapPixelFormat"
_PIXEL_FORMATS = {"bgr8": BGR, "rgb8": RGB}
_CHANNEL_DENOTATION = "DATA_CHANNEL"
# Of a batch's four dimensions, which one is the channels.
_CHANNEL_AXIS = {NCHW: 1, NHWC: 3}
_CHANNELS = (1, 3)
_USUAL_CHANNELS = 3
_GIVEN = "as given"


@dataclass(frozen=True)
class ImageFormat:
    """How a model takes its image.

    Attributes:
        layout: one of `inputs.LAYOUTS`.
        color: one of `inputs.COLORS`, or GREY for one channel.
        takes_bytes: whether pixels are uint8, of 0 to 255, and not normalized floats.
        layout_from: what says so: "its shape", "its file" or "as given".
        color_from: what says the order of colours; "" if nothing does, and R, G, B is assumed.
    """

    layout: str
    color: str
    takes_bytes: bool
    layout_from: str
    color_from: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether the graph can stay as it is: floats of R, G and B, channels first."""
        return (self.layout, self.color, self.takes_bytes) == (NCHW, RGB, False)

    @property
    def channels_in_words(self) -> str:
        """Their order, or that there is one."""
        return "one grey channel" if self.color == GREY else self.color.upper()

    def __str__(self) -> str:
        """In words, such as "NHWC (its shape), BGR (as given)"."""
        kind = ", uint8 pixels" if self.takes_bytes else ""
        color = self.channels_in_words
        reason = f" ({self.color_from})" if self.color_from else ""
        return f"{self.layout.upper()} ({self.layout_from}), {color}{reason}{kind}"


def find_format(
    proto: onnx.ModelProto, spec: TensorSpec, where: str, layout: str | None, color: str | None
) -> ImageFormat:
    """How a model takes its image: as it was named, else as the file says, else as its shape says.

    Args:
        proto: the model.
        spec: its one input.
        where: its file, for messages.
        layout: one of `inputs.LAYOUTS` that the user names, or None.
        color: one of `inputs.COLORS` that the user names, or None.

    Raises:
        EngineError: the input is no image, or not as it was named.
    """
    is_image = len(spec.shape) == 4 and (spec.dtype.is_floating_point or spec.dtype == torch.uint8)
    if not is_image:
        raise EngineError(f"{where} {_WANTED}; it takes {spec}")
    declared = _declared_layout(proto)
    by_shape = [name for name in LAYOUTS if spec.shape[_CHANNEL_AXIS[name]] in _CHANNELS]
    if layout is not None:
        chosen, reason = layout, _GIVEN
    elif declared is not None:
        chosen, reason = declared, "its file"
    elif by_shape:
        chosen, reason = by_shape[0], "its shape"
    elif None in (spec.shape[axis] for axis in _CHANNEL_AXIS.values()):
        raise EngineError(
            f"{where} does not say which dimension is the channels: it takes {spec}; name it with "
            f"--layout nchw or --layout nhwc, and they are three"
        )
    else:
        raise EngineError(f"{where} {_WANTED}; it takes {spec}")
    channels = spec.shape[_CHANNEL_AXIS[chosen]] or _USUAL_CHANNELS
    if channels not in _CHANNELS:
        raise EngineError(
            f"{where}: layout {chosen} ({reason}) does not suit {spec}: of it dimension "
            f"{_CHANNEL_AXIS[chosen] + 1} would be the channels, which are 1 or 3"
        )
    takes_bytes = spec.dtype == torch.uint8
    if channels == 1:
        if color is not None:
            raise EngineError(
                f"{where} takes one channel ({spec}), which is made of R, G and B by their weights "
                f"in grey: leave out --color {color}, or model::color in a TOML file"
            )
        return ImageFormat(chosen, GREY, takes_bytes, reason, "")
    if color is not None:
        return ImageFormat(chosen, color, takes_bytes, reason, _GIVEN)
    in_file = _declared_color(proto)
    return ImageFormat(chosen, in_file or RGB, takes_bytes, reason, "its file" if in_file else "")


_WANTED = (
    "must take one image of 1 or 3 channels, as floats or uint8, with its channels first or last, "
    "such as N x 3 x 224 x 224 or N x 224 x 224 x 3"
)


def _declared_layout(proto: onnx.ModelProto) -> str | None:
    """What the denotations of the input's dimensions say, or None."""
    (value,) = true_inputs(proto)
    for number, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.denotation == _CHANNEL_DENOTATION:
            return next((name for name, axis in _CHANNEL_AXIS.items() if axis == number), None)
    return None


def _declared_color(proto: onnx.ModelProto) -> str | None:
    """What the model's metadata says, or None."""
    metadata: Mapping[str, str] = {entry.key: entry.value for entry in proto.metadata_props}
    return _PIXEL_FORMATS.get(metadata.get(_PIXEL_FORMAT_KEY, "").lower())
