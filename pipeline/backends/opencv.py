"""CPU image operators on OpenCV matrices: arrays of shape (height, width, 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from engine.contexts.cuda_device import cuda_available
from engine.errors import EngineError
from engine.resizing import Resizing
from interfaces.kinds import MOST_SIDE
from pipeline.backends.corners import CORNER_SETTINGS, node_corners, part_of
from pipeline.backends.cpu_operator import (
    COLOR_SETTING,
    RESIZE_SETTINGS,
    CpuOperator,
    matrix,
    needed,
    needed_size,
    size_of_item,
)
from pipeline.backends.gpu import to_gpu
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import as_nchw, as_tensor
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY
from pipeline.language.settings import Setting, choice, read_side, read_switch
from service.images.decoding import decode_bgr

DATA_FORMAT_KEY = "data_format"
RESIZE_SHORTER = "resize_shorter"


@register("DecodeMat")
class DecodeMat(CpuOperator):
    """Encoded bytes in, a uint8 matrix in B, G, R order out; the item's `color` says so.

    With `reduced` a JPEG is decoded at a half, a quarter or an eighth of its size, as long as both
    sides keep as many pixels as the larger of the node's `resize_h` and `resize_w`, or as
    ResizeCropMat's `resize_shorter`.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "reduced",
            read_switch,
            "true or false",
            False,
            help="decode JPEGs no larger than resizing needs; gives other pixels",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Know how long items may wait for memory, and which size is needed."""
        super().init(config)
        self._deadline_s = config.deadline_s
        self._least_side = 0
        if config.settings["reduced"]:
            shorter = config.settings.get(RESIZE_SHORTER)
            sides: list[Any] = [config.settings.get(name) for name in ("resize_h", "resize_w")]
            if shorter is not None:
                sides = [shorter]
            elif None in sides:
                raise PipelineConfigError(
                    "DecodeMat with reduced = true needs resize_h and resize_w of a ResizeMat in "
                    "the same node, in pixels"
                )
            self._least_side = max(sides)

    def process(self, item: Item) -> Any:
        """Decode; an InvalidImageError fails the item."""
        decoded = decode_bgr(item[TASK_DATA_KEY], self._deadline_s(item), self._least_side)
        item[TASK_COLOR_KEY] = "bgr"
        return decoded


@register("ResizeMat")
class ResizeMat(CpuOperator):
    """Resizes to `resize_h` x `resize_w` pixels, bilinear, without keeping the aspect ratio."""

    settings: ClassVar[tuple[Setting, ...]] = RESIZE_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the size."""
        super().init(config)
        height, width = needed_size(config, "ResizeMat", "resize_h", "resize_w")
        self._size = (width, height)

    def process(self, item: Item) -> Any:
        """Resize one matrix."""
        return cv2.resize(matrix(item), self._size, interpolation=cv2.INTER_LINEAR)


@register("ResizeCropMat")
class ResizeCropMat(CpuOperator):
    """Resizes the shorter side to `resize_shorter` pixels and cuts out the middle.

    The aspect ratio stays. The middle has `resize_h` x `resize_w` pixels. Bilinear. It is what most
    models of torchvision expect: `resize_shorter` 256, and 224 x 224.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            RESIZE_SHORTER,
            read_side,
            f"pixels, 1 to {MOST_SIDE}",
            help="the shorter side of the image, before its middle is cut out",
            unit="pixels",
            example=256,
        ),
        *RESIZE_SETTINGS,
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the sizes."""
        super().init(config)
        (shorter,) = needed(config, "ResizeCropMat", RESIZE_SHORTER)
        height, width = needed_size(config, "ResizeCropMat", "resize_h", "resize_w")
        try:
            self._resizing = Resizing(height, width, shorter)
        except EngineError as error:
            raise PipelineConfigError(f"ResizeCropMat: {error}") from error

    def process(self, item: Item) -> Any:
        """A view of the middle of one resized matrix."""
        return self._resizing(matrix(item))


@register("DynamicResizeMat")
class DynamicResizeMat(CpuOperator):
    """Resizes each matrix to the size that its item names under `resize_h` and `resize_w`."""

    def process(self, item: Item) -> Any:
        """Resize one matrix."""
        height, width = size_of_item(item, "DynamicResizeMat")
        return cv2.resize(matrix(item), (width, height), interpolation=cv2.INTER_LINEAR)


@register("FloatMat")
class FloatMat(CpuOperator):
    """Makes float32 of the values of a matrix, unscaled."""

    def process(self, item: Item) -> Any:
        """The matrix or a copy."""
        return matrix(item).astype(np.float32, copy=False)


@register("cvtColorMat", "CvtColorMat")
class CvtColorMat(CpuOperator):
    """Brings the channels into the order that the setting `color` names.

    The item says under `color` which order a matrix has; DecodeMat sets it, and where it is missing
    the order is B, G, R.
    """

    settings: ClassVar[tuple[Setting, ...]] = (COLOR_SETTING,)

    def init(self, config: InstanceConfig) -> None:
        """Read the order."""
        super().init(config)
        self._color = config.settings["color"]

    def process(self, item: Item) -> Any:
        """Swap the first and the third channel, or nothing where the order is right."""
        data, has = matrix(item), item.get(TASK_COLOR_KEY, "bgr")
        if has not in ("rgb", "bgr"):
            raise ValueError(f'the item says color = {has!r}: expected "rgb" or "bgr"')
        if has == self._color:
            return data
        converted = cv2.cvtColor(data, cv2.COLOR_BGR2RGB)
        item[TASK_COLOR_KEY] = self._color
        return converted


@register("CropMat")
class CropMat(CpuOperator):
    """Cuts out the pixels from (`x1`, `y1`) up to, and without, (`x2`, `y2`).

    The corners are the node's settings; an item may bring its own under the same keys, or all four
    in this order under `_box` or `BOX`. What stands behind them in a box, such as a score, is not
    read. The result is a view of the matrix.
    """

    settings: ClassVar[tuple[Setting, ...]] = CORNER_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the corners."""
        super().init(config)
        self._corners = node_corners(config, "CropMat")

    def process(self, item: Item) -> Any:
        """A view of the part."""
        data = matrix(item)
        height, width = data.shape[:2]
        return data[part_of(item, self._corners, (height, width), "CropMat")]


@register("Mat2Tensor")
class Mat2Tensor(CpuOperator):
    """A matrix in, a tensor of the same type out.

    With `data_format` "nchw" its shape is (1, 3, height, width), and its memory order is the
    matrix's, `torch.channels_last`, which the model graph takes as it is; with "hwc" it is (height,
    width, 3). The item's `data_format` says which. On the CPU it is a view of the matrix; with
    `device` "gpu" or "cuda" a copy on the node's GPU.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "device",
            choice("cpu", "gpu", "cuda"),
            '"cpu", "gpu" or "cuda"',
            "cpu",
            help="where the tensor lies",
        ),
        Setting(
            "data_format",
            choice("nchw", "hwc"),
            '"nchw" or "hwc"',
            "nchw",
            help="the order of its dimensions",
        ),
    )

    @classmethod
    def runs_on_gpu(cls, settings: Mapping[str, Any], engine: str) -> bool:  # noqa: ARG003
        """Whether the tensors go there."""
        return cls._device(settings) != "cpu"

    @classmethod
    def _device(cls, settings: Mapping[str, Any]) -> str:
        return str(settings["device"])

    _cpu_wish: ClassVar[str] = 'device = "cpu"'

    def _gpu_wish(self, device: str) -> str:
        return f'Mat2Tensor with device = "{device}"'

    def init(self, config: InstanceConfig) -> None:
        """Read where the tensors go; refuse a GPU on a host without one."""
        super().init(config)
        self._format = config.settings["data_format"]
        device = self._device(config.settings)
        if device != "cpu" and not cuda_available():
            raise PipelineConfigError(
                f"{self._gpu_wish(device)} needs an NVIDIA GPU and a CUDA build of torch, and this "
                f"host lacks them: use {self._cpu_wish}"
            )
        self._gpu = None if device == "cpu" else torch.device("cuda", config.device_id)

    def process(self, item: Item) -> torch.Tensor:
        """View the matrix as a tensor, and copy it if it is to be on a GPU."""
        data = np.ascontiguousarray(matrix(item))
        if self._format == "nchw":
            # NumPy's view rather than torch's: every call of torch gives the interpreter's lock
            # away.
            data = data[np.newaxis].transpose(0, 3, 1, 2)
        tensor = torch.from_numpy(data)
        if self._gpu is not None:
            tensor = to_gpu(tensor, self._gpu)
        item[DATA_FORMAT_KEY] = self._format
        return tensor


_DATA_FORMAT = Mat2Tensor.settings[1:]


@register("Mat2CpuTensor")
class Mat2CpuTensor(Mat2Tensor):
    """Does what Mat2Tensor does with `device` "cpu"."""

    settings: ClassVar[tuple[Setting, ...]] = _DATA_FORMAT

    @classmethod
    def _device(cls, settings: Mapping[str, Any]) -> str:  # noqa: ARG003 (always this one)
        return "cpu"


@register("Mat2GpuTensor")
class Mat2GpuTensor(Mat2Tensor):
    """Does what Mat2Tensor does with `device` "gpu"."""

    settings: ClassVar[tuple[Setting, ...]] = _DATA_FORMAT

    @classmethod
    def _device(cls, settings: Mapping[str, Any]) -> str:  # noqa: ARG003 (always this one)
        return "gpu"

    _cpu_wish: ClassVar[str] = "Mat2CpuTensor"

    def _gpu_wish(self, device: str) -> str:  # noqa: ARG002 (there is one only)
        return "Mat2GpuTensor"


@register("Tensor2Mat")
class Tensor2Mat(CpuOperator):
    """A tensor in, a matrix of the same type out, on the CPU.

    Takes uint8 or float32 of the shape (1, 3, height, width) or (height, width, 3).
    """

    # The tensor may lie on a GPU, whose work stays in the instance's own thread.
    any_thread = False

    def process(self, item: Item) -> Any:
        """The matrix, which shares the memory of a tensor whose pixels lie like a matrix's."""
        image = as_nchw(as_tensor(item[TASK_DATA_KEY], "Tensor2Mat"), "Tensor2Mat")
        if image.shape[0] != 1:
            raise ValueError(f"Tensor2Mat takes one image, got the shape {tuple(image.shape)}")
        pixels = np.ascontiguousarray(image[0].permute(1, 2, 0).detach().cpu().numpy())
        return matrix({TASK_DATA_KEY: pixels})
