"""Image operators on an NVIDIA GPU: uint8 tensors of shape (1, 3, height, width).

The tensors have the memory order `torch.channels_last`, as decoders give it and networks like it.
All work is enqueued on the instance's stream; nothing here waits for it, except where a result has
to be on the host.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch.nn import functional

from engine.contexts.cuda_context import CudaContext
from engine.contexts.cuda_device import cuda_available
from interfaces.kinds import MOST_SIDE
from pipeline.backends.corners import CORNER_SETTINGS, node_corners, part_of
from pipeline.backends.cpu_operator import COLOR_SETTING, RESIZE_SETTINGS, needed_size
from pipeline.backends.gpu_image import DecodedImage, GpuImage, GraphRow, Pixels, as_gpu_tensor
from pipeline.backends.interface import ENGINE_INPUT_OFFER, Backend, InstanceConfig, Item, fail
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import as_nchw, as_tensor
from pipeline.errors import MissingHereError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.language.settings import Setting, read_byte, read_pixels

MOST_IMAGES = 64
"""Images of one launch."""


def missing_gpu(operator: type[GpuOperator]) -> str:
    """What to say of an operator on a host without a GPU."""
    return (
        f"{operator.__name__} needs an NVIDIA GPU and a CUDA build of torch, and this host lacks "
        f"them: use {operator.cpu_counterpart}"
    )


class GpuOperator(Backend):
    """An operator on the GPU that takes whatever a batch holds at once."""

    # What does the same on a CPU, for the error message.
    cpu_counterpart: ClassVar[str]
    max: int = MOST_IMAGES

    @classmethod
    def runs_on_gpu(cls, settings: Mapping[str, Any], engine: str) -> bool:  # noqa: ARG003
        """Always."""
        return True

    def init(self, config: InstanceConfig) -> None:
        """Refuse a host without a GPU."""
        if not cuda_available():
            raise MissingHereError(missing_gpu(type(self)))
        self._device = torch.device("cuda", config.device_id)

    def forward(self, items: Sequence[Item]) -> None:
        """Enqueue the work of one image after the other."""
        for item in items:
            try:
                item[TASK_RESULT_KEY] = self.process(item)
            except (TypeError, ValueError) as error:
                fail(item, error)

    @abstractmethod
    def process(self, item: Item) -> Any:
        """The result for one item; TypeError or ValueError fail it."""


@register("ResizeTensor")
class ResizeTensor(GpuOperator):
    """Resizes to `resize_h` x `resize_w` pixels, bilinear, all images of a batch in one launch.

    Where the engine follows in the same node and takes images of that size, the launch is a part
    of the engine's CUDA graph, except while stages are profiled.
    """

    cpu_counterpart: ClassVar[str] = "ResizeMat"
    settings: ClassVar[tuple[Setting, ...]] = RESIZE_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the size, compile the kernel, and take the memory that a launch needs."""
        super().init(config)
        height, width = self._size = needed_size(
            config, type(self).__name__, "resize_h", "resize_w"
        )
        from pipeline.backends.resizing import ResizePrologue, Resizer

        self._resizer = Resizer(height, width, MOST_IMAGES, self._device)
        self.process({TASK_DATA_KEY: torch.zeros((1, 3, 8, 8), device=self._device).byte()})
        self._context: CudaContext | None = None
        context = config.offers.pop(ENGINE_INPUT_OFFER, None)
        takes_this_size = context is not None and (
            context.engine.inputs[0].item_shape == (3, height, width)
        )
        if takes_this_size and not config.profile_stages:
            context.put_prologue(ResizePrologue(context.max_rows, self._device))
            self._context = context

    def forward(self, items: Sequence[Item]) -> None:
        """Enqueue one launch for all images that can be resized, or leave it to the engine."""
        batch, images = [], []
        for item in items:
            try:
                # The item keeps what is read alive until the node is done with it.
                data = item[TASK_DATA_KEY] = packed_rows(item[TASK_DATA_KEY])
                images.append(_pixels(data))
                batch.append(item)
            except (TypeError, ValueError) as error:
                fail(item, error)
        if not batch:
            return
        resized: Sequence[Any]
        if self._context is None:
            resized = self._resizer.resize(images)
        else:
            resized = [
                GraphRow(self._context, image, item[TASK_DATA_KEY], self._resizer.resize)
                for item, image in zip(batch, images, strict=True)
            ]
        for item, row in zip(batch, resized, strict=True):
            item[TASK_RESULT_KEY] = row

    def process(self, item: Item) -> torch.Tensor:
        """Resize one image."""
        data = item[TASK_DATA_KEY] = packed_rows(item[TASK_DATA_KEY])
        return self._resizer.resize([_pixels(data)])[0]


@register("ResizeTensorV1")
class ResizeTensorV1(ResizeTensor):
    """Does what ResizeTensor does, also with tensors and matrices that lie on the host.

    They are copied to the GPU first. Takes uint8, channels first or last.
    """

    def forward(self, items: Sequence[Item]) -> None:
        """Copy what lies on the host, and enqueue one launch."""
        on_gpu = []
        for item in items:
            try:
                item[TASK_DATA_KEY] = self._on_gpu(item[TASK_DATA_KEY])
                on_gpu.append(item)
            except (TypeError, ValueError) as error:
                fail(item, error)
        super().forward(on_gpu)

    def _on_gpu(self, data: Any) -> Any:
        if isinstance(data, GpuImage):
            return data
        name = type(self).__name__
        return to_gpu(as_nchw(as_tensor(data, name), name), self._device)


@register("PPLResizeTensor")
class PPLResizeTensor(ResizeTensorV1):
    """Does what ResizeTensorV1 does; an item that names another size than the node's fails.

    torchpipe's takes the item's size: DynamicResizeTensor does.
    """

    def forward(self, items: Sequence[Item]) -> None:
        """Resize the items of the node's size."""
        fitting = []
        for item in items:
            try:
                refuse_another_size(item, self._size)
                fitting.append(item)
            except ValueError as error:
                fail(item, error)
        super().forward(fitting)


@register("CvtColorTensor", "cvtColorTensor")
class CvtColorTensor(GpuOperator):
    """Brings the channels into the order that `color` names.

    The item says under `color` which order an image has; DecodeTensor sets it.
    """

    cpu_counterpart: ClassVar[str] = "CvtColorMat"
    settings: ClassVar[tuple[Setting, ...]] = (COLOR_SETTING,)

    def init(self, config: InstanceConfig) -> None:
        """Read the order."""
        super().init(config)
        self._color = config.settings["color"]

    def process(self, item: Item) -> Any:
        """Swap the first and the third channel, or nothing where the order is right."""
        if item.get(TASK_COLOR_KEY, "bgr") == self._color:
            return item[TASK_DATA_KEY]
        item[TASK_COLOR_KEY] = self._color
        return gpu_image(item[TASK_DATA_KEY]).flip(1)


@register("CropTensor", "PPLCropTensor")
class CropTensor(GpuOperator):
    """Cuts out the pixels from (`x1`, `y1`) up to, and without, (`x2`, `y2`).

    The corners are the node's settings; an item may bring its own under the same keys, or all four
    in this order under `_box` or `BOX`. The result is a view of the image.
    """

    cpu_counterpart: ClassVar[str] = "CropMat"
    settings: ClassVar[tuple[Setting, ...]] = CORNER_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Read the corners."""
        super().init(config)
        self._corners = node_corners(config, "CropTensor")

    def process(self, item: Item) -> torch.Tensor:
        """A view of the part."""
        image = gpu_image(item[TASK_DATA_KEY])
        height, width = image.shape[2:]
        rows, columns = part_of(item, self._corners, (height, width), "CropTensor")
        return image[:, :, rows, columns]


_SIDES = ("left", "right", "top", "bottom")


@register("CopyMakeBorderTensor", "PPLCopyMakeBorderTensor")
class CopyMakeBorderTensor(GpuOperator):
    """Puts `top`, `bottom`, `left` and `right` pixels of `pad_value` around an image.

    They are the node's settings; an item may bring its own under the same keys.
    """

    cpu_counterpart: ClassVar[str] = "cv2.copyMakeBorder in a Python backend"
    settings: ClassVar[tuple[Setting, ...]] = (
        *(
            Setting(
                name,
                read_pixels,
                f"pixels, 0 to {MOST_SIDE}",
                0,
                help="how wide the border is; an item may bring its own",
                unit="pixels",
            )
            for name in ("top", "bottom", "left", "right")
        ),
        Setting("pad_value", read_byte, "a grey level, 0 to 255", 0, help="what fills the border"),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the border."""
        super().init(config)
        self._border = {side: config.settings[side] for side in _SIDES}
        self._pad_value = config.settings["pad_value"]

    def process(self, item: Item) -> torch.Tensor:
        """The larger image."""
        image = gpu_image(item[TASK_DATA_KEY])
        padded = functional.pad(image, border_of(item, self._border), value=self._pad_value)
        return padded.contiguous(memory_format=torch.channels_last)


@register("GpuTensor")
class GpuTensor(GpuOperator):
    """Copies a tensor, or a matrix, to the GPU."""

    cpu_counterpart: ClassVar[str] = "the tensor as it is"

    def process(self, item: Item) -> torch.Tensor:
        """The copy; a tensor that lies on this GPU already is handed on."""
        return to_gpu(item[TASK_DATA_KEY], self._device)


@register("CpuTensor")
class CpuTensor(GpuOperator):
    """Copies a tensor to the host and waits for it."""

    cpu_counterpart: ClassVar[str] = "the tensor as it is"

    def process(self, item: Item) -> torch.Tensor:
        """The copy."""
        data = as_gpu_tensor(item[TASK_DATA_KEY])
        if not isinstance(data, torch.Tensor):
            raise TypeError(f"CpuTensor takes a tensor, got {type(data).__name__}")
        return data.cpu()


def border_of(item: Item, border: Mapping[str, int]) -> list[int]:
    """How wide an item's border is, in pixels: left, right, top and bottom.

    Args:
        item: may bring its own under these names.
        border: the node's.

    Raises:
        ValueError: what the item brings is no such width.
    """
    given = {side: item[side] for side in _SIDES if side in item}
    try:
        own = {side: read_pixels(index(width)) for side, width in given.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"CopyMakeBorderTensor: the item's border {given}: expected pixels, 0 to {MOST_SIDE}"
        ) from error
    return [own.get(side, border[side]) for side in _SIDES]


def refuse_another_size(item: Item, size: tuple[int, int]) -> None:
    """ValueError if an item asks under `resize_h` or `resize_w` for another size in pixels."""
    wanted = tuple(
        item.get(key, own) for key, own in zip(("resize_h", "resize_w"), size, strict=True)
    )
    if wanted != size:
        raise ValueError(
            f"PPLResizeTensor resizes to the node's size {size[0]} x {size[1]}, and the item asks "
            f"for {wanted[0]} x {wanted[1]}: use DynamicResizeTensor, which reads the item's size"
        )


def to_gpu(data: Any, device: torch.device) -> torch.Tensor:
    """A tensor, or a matrix of shape (height, width, 3), on the GPU.

    Raises:
        TypeError: it is neither.
    """
    data = as_gpu_tensor(data)
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(np.ascontiguousarray(data)).permute(2, 0, 1).unsqueeze(0)
    if not isinstance(data, torch.Tensor):
        raise TypeError(f"expected a tensor or a matrix, got {type(data).__name__}")
    if data.is_cuda:
        return data.to(device, non_blocking=True)
    # Page-locked, the copy runs beside what the host does next; torch keeps the memory until then.
    return data.pin_memory().to(device, non_blocking=True)


def gpu_image(data: Any) -> torch.Tensor:
    """An image on the GPU, decoded or a tensor; TypeError or ValueError if `data` is none."""
    data = as_gpu_tensor(data)
    if not isinstance(data, torch.Tensor) or not data.is_cuda:
        what = "a tensor on the host" if isinstance(data, torch.Tensor) else type(data).__name__
        raise TypeError(f"expected a tensor on the GPU, got {what}: put GpuTensor before")
    if data.dtype != torch.uint8 or data.ndim != 4 or tuple(data.shape[:2]) != (1, 3):
        raise ValueError(
            f"expected uint8 of shape (1, 3, height, width), got {data.dtype} {tuple(data.shape)}"
        )
    return data


def packed_rows(data: Any) -> DecodedImage | torch.Tensor:
    """The image with its pixels packed as three bytes each; rows may lie apart."""
    if isinstance(data, DecodedImage):
        return data
    image = gpu_image(data)
    if image.stride(1) == 1 and image.stride(3) == 3:
        return image
    return image.contiguous(memory_format=torch.channels_last)


def _pixels(image: DecodedImage | torch.Tensor) -> Pixels:
    """Where an image lies that `packed_rows` returned."""
    if isinstance(image, DecodedImage):
        return image.pixels
    return Pixels(image.data_ptr(), image.shape[2], image.shape[3], image.stride(2))


def in_color(matrix: Any, color: str) -> Any:
    """A matrix in B, G, R order, brought into the order that `color` names."""
    return cv2.cvtColor(matrix, cv2.COLOR_BGR2RGB) if color == "rgb" else matrix
