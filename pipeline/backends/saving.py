"""Backends that save what passes, or load it: to compare a stage with the same one in training."""

from __future__ import annotations

import logging
import os
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import cv2
import torch

from engine.cache.bounded_file import why_no_folder
from pipeline.backends.cpu_operator import CpuOperator, byte_matrix, needed
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import TensorOperator, load_tensors
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_COLOR_KEY, TASK_DATA_KEY
from pipeline.language.settings import Setting, read_text

logger = logging.getLogger(__name__)

_SAVE_SETTINGS = (
    Setting(
        "save_dir", read_text, "a folder that exists", help="where the files go", example="saved"
    ),
)


class _Files:
    """Names of files that neither another instance nor another process has.

    They are NODE_PROCESS_INSTANCE_NUMBER: the numbers of an instance follow its items.
    """

    def __init__(self, config: InstanceConfig, operator: str) -> None:
        folder = Path(*needed(config, operator, "save_dir"))
        if reason := why_no_folder(folder):
            raise PipelineConfigError(f"{operator}: save_dir = {str(folder)!r}: {reason}")
        self._stem = folder / f"{config.node}_{os.getpid()}_{uuid4().hex[:8]}"
        self._numbers = count()
        logger.warning("%s in node %s writes files, which costs time", operator, config.node)

    def next(self, suffix: str) -> Path:
        return Path(f"{self._stem}_{next(self._numbers):06}{suffix}")


class _Saving(CpuOperator):
    """What saves has files of its own, in a folder that is looked for at the start."""

    settings: ClassVar[tuple[Setting, ...]] = _SAVE_SETTINGS

    def init(self, config: InstanceConfig) -> None:
        """Look whether the folder is there."""
        super().init(config)
        self._files = _Files(config, type(self).__name__)


@register("SaveTensor")
class SaveTensor(_Saving, TensorOperator):
    """Saves each tensor in a file of its own in the folder `save_dir`, and hands it on.

    torch.load(path) gives the tensor, on the CPU, with its type and shape. The names are
    NODE_PROCESS_INSTANCE_NUMBER.pt.
    """

    def process(self, item: Item) -> Any:
        """The data itself."""
        data = item[TASK_DATA_KEY]
        for one in data if isinstance(data, list | tuple) else [data]:
            # A view would be saved with all that it is a view of.
            torch.save(self._tensor(one).detach().cpu().clone(), self._files.next(".pt"))
        return data


@register("SaveMat", "SaveMats")
class SaveMat(_Saving):
    """Saves each matrix of uint8 as a PNG in the folder `save_dir`, and hands it on.

    Where the item says that the channels are R, G, B, they are swapped for the file. The names are
    NODE_PROCESS_INSTANCE_NUMBER.png.
    """

    def process(self, item: Item) -> Any:
        """The data itself: a matrix or a list of them."""
        data = item[TASK_DATA_KEY]
        for one in data if isinstance(data, list | tuple) else [data]:
            matrix = byte_matrix({TASK_DATA_KEY: one})
            if item.get(TASK_COLOR_KEY) == "rgb":
                matrix = matrix[:, :, ::-1]
            path = self._files.next(".png")
            if not cv2.imwrite(str(path), matrix):
                raise OSError(f"{path} cannot be written")
        return data


@register("LoadTensor", "LoadTensors")
class LoadTensor(CpuOperator):
    """Gives every item the tensor of the file `tensor_name`, whatever its data is.

    A file with a list of tensors gives the list. It is read once, by the first instance of the
    node, and lies on the CPU: GpuTensor takes it to the GPU.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "tensor_name",
            read_text,
            "a file made by torch.save",
            help="what is loaded",
            example="tensor.pt",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Read the file."""
        super().init(config)
        (path,) = needed(config, "LoadTensor", "tensor_name")
        self._tensors = config.shared.get_or_create(path, lambda: load_tensors(path, "LoadTensor"))

    def process(self, item: Item) -> Any:  # noqa: ARG002 (its data makes no difference)
        """The tensor itself, not a copy."""
        return self._tensors


@register("ReadFile")
class ReadFile(CpuOperator):
    """Reads the file whose path is the data; its bytes are the result."""

    def process(self, item: Item) -> bytes:
        """The bytes; an OSError fails the item."""
        data = item[TASK_DATA_KEY]
        if not isinstance(data, str | Path):
            raise TypeError(f"ReadFile takes the path of a file as text, got {type(data).__name__}")
        return Path(data).read_bytes()
