"""CPU image operators on OpenCV matrices: uint8 arrays of shape (height, width, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from engine.cpu import fitting_contexts
from pipeline.backend import InstanceConfig, ItemBackend
from pipeline.errors import PipelineConfigError
from pipeline.registry import register
from pipeline.settings import Setting, choice, read_count
from service.image_decoding import decode_bgr


class CpuOperator(ItemBackend):
    """An operator that keeps one core busy: instances are its parallelism."""

    @classmethod
    def fitting_instance_num(
        cls,
        instance_num: int,
        settings: Mapping[str, Any],  # noqa: ARG003 (the same for all)
        engine: str,  # noqa: ARG003
    ) -> int:
        """One instance a core at most: more would take turns on the cores."""
        return fitting_contexts(instance_num)

    def init(self, config: InstanceConfig) -> None:  # noqa: ARG002 (for those with settings)
        """Keep OpenCV from starting threads of its own beside the instances'."""
        cv2.setNumThreads(1)


@register("DecodeMat")
class DecodeMat(CpuOperator):
    """Encoded bytes in, a matrix in B, G, R order out."""

    def process(self, data: Any) -> Any:
        """Decode; an InvalidImageError fails the item."""
        return decode_bgr(data)


@register("ResizeMat")
class ResizeMat(CpuOperator):
    """Resizes to `resize_h` x `resize_w` pixels, bilinear, without keeping the aspect ratio."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("resize_h", read_count, "a height in pixels"),
        Setting("resize_w", read_count, "a width in pixels"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the size."""
        super().init(config)
        height, width = config.settings["resize_h"], config.settings["resize_w"]
        if height is None or width is None:
            raise PipelineConfigError("ResizeMat needs resize_h and resize_w, in pixels")
        self._size = (width, height)

    def process(self, data: Any) -> Any:
        """Resize one matrix."""
        return cv2.resize(data, self._size, interpolation=cv2.INTER_LINEAR)


@register("cvtColorMat", "CvtColorMat")
class CvtColorMat(CpuOperator):
    """Converts B, G, R, which DecodeMat gives, to the order that `color` names."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("color", choice("rgb", "bgr"), '"rgb" or "bgr"', "rgb"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the order."""
        super().init(config)
        self._swap = config.settings["color"] == "rgb"

    def process(self, data: Any) -> Any:
        """Swap the first and third channel, or nothing where `color` is "bgr"."""
        return cv2.cvtColor(data, cv2.COLOR_BGR2RGB) if self._swap else data


@register("Mat2Tensor")
class Mat2Tensor(CpuOperator):
    """A matrix in, a uint8 tensor of shape (1, 3, height, width) out, without copying.

    The tensor keeps the matrix's memory order, which is `torch.channels_last`, and which the model
    graph takes as it is.
    """

    def process(self, data: Any) -> Any:
        """View the matrix as a tensor."""
        rows = np.ascontiguousarray(data)[np.newaxis]
        # NumPy's view rather than torch's: every call of torch gives the interpreter's lock away.
        return torch.from_numpy(rows.transpose(0, 3, 1, 2))
