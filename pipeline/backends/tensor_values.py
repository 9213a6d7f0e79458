"""Operators that compute with the values of a tensor, look them up or print them."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import torch
from torch.nn import functional

from pipeline.backends.cpu_operator import needed
from pipeline.backends.interface import InstanceConfig, Item
from pipeline.backends.registry import register
from pipeline.backends.tensor_operator import EachTensor, TensorOperator, load_tensors
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY
from pipeline.language.settings import Setting, read_text

logger = logging.getLogger(__name__)

_REQUEST_ID_KEY = "request_id"
# A tensor of more values is printed by its ends.
_MOST_PRINTED = 60
_END_VALUES = 5


@register("ArgMaxTensor")
class ArgMaxTensor(EachTensor):
    """The position of the largest value along the last dimension; int64 of the shape without it."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The positions."""
        return tensor.argmax(-1)


@register("SoftmaxArgMaxTensor")
class SoftmaxArgMaxTensor(EachTensor):
    """The same as ArgMaxTensor; of a single row the item also gets `class` and `score`.

    `class` is the position as a whole number, `score` its softmax as a float.
    """

    def process(self, item: Item) -> Any:
        """The positions, and of one row the class and its probability."""
        result = super().process(item)
        data = item[TASK_DATA_KEY]
        if isinstance(result, torch.Tensor) and result.numel() == 1:
            scores = self._tensor(data).float().softmax(-1)
            item["class"], item["score"] = int(result), float(scores.max())
        return result

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """A softmax keeps the order of the values."""
        return tensor.argmax(-1)


class _Lookup(EachTensor):
    """Looks up rows of a table that a file has."""

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            "tensor",
            read_text,
            "a file made by torch.save with one tensor",
            help="the table of rows",
            example="table.pt",
        ),
    )

    def init(self, config: InstanceConfig) -> None:
        """Load the table, once for all instances of the node."""
        super().init(config)
        (path,) = needed(config, type(self).__name__, "tensor")
        table = config.shared.get_or_create(path, lambda: load_tensors(path, type(self).__name__))
        if isinstance(table, list) or not table.ndim:
            raise PipelineConfigError(
                f"{type(self).__name__}: {path!r} has no tensor with rows, from which to choose"
            )
        self._table: torch.Tensor = table

    def _table_for(self, indices: torch.Tensor) -> torch.Tensor:
        """The table where the numbers of the rows are, which have to be whole numbers."""
        if indices.dtype not in (torch.int32, torch.int64):
            raise TypeError(
                f"{type(self).__name__} takes row numbers of int32 or int64, got {indices.dtype}"
            )
        self._table = self._table.to(indices.device)
        return self._table


@register("IndexSelectTensor", "EmbedTokensTensor")
class IndexSelectTensor(_Lookup):
    """The rows of the file `tensor` that the data, a list of row numbers, names.

    Takes int32 or int64 of the shape (n) or (1, n), gives (n, ...).
    """

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows."""
        if tensor.ndim == 2 and tensor.shape[0] == 1:
            tensor = tensor.squeeze(0)
        return self._table_for(tensor).index_select(0, tensor)


@register("EmbeddingTensor")
class EmbeddingTensor(_Lookup):
    """The rows of the file `tensor` that the data names, in its shape: (a, b) gives (a, b, ...)."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows."""
        return functional.embedding(tensor, self._table_for(tensor))


@register("Tensor2Vector")
class Tensor2Vector(EachTensor):
    """A list of all values, as Python's numbers."""

    def apply(self, tensor: torch.Tensor) -> list[Any]:
        """The values in the order of the dimensions."""
        return list(tensor.flatten().tolist())


@register("PrintTensor")
class PrintTensor(TensorOperator):
    """Logs the shape and the values of the data, as a warning, and hands it on.

    Of more than 60 values the first and the last five. It waits for a GPU.
    """

    def process(self, item: Item) -> Any:
        """The data itself."""
        data = item[TASK_DATA_KEY]
        tensors = data if isinstance(data, list | tuple) else [data]
        about = f" of request {item[_REQUEST_ID_KEY]}" if _REQUEST_ID_KEY in item else ""
        for number, tensor in enumerate(map(self._tensor, tensors)):
            values = tensor.detach().cpu()
            text = (
                str(values.tolist())
                if values.numel() <= _MOST_PRINTED
                else f"{values.flatten()[:_END_VALUES].tolist()} ... "
                f"{values.flatten()[-_END_VALUES:].tolist()}"
            )
            logger.warning(
                "tensor %d%s: %s %s on %s: %s",
                number,
                about,
                values.dtype,
                tuple(values.shape),
                tensor.device,
                text,
            )
        return data
