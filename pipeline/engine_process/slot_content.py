"""What is in a slot of shared memory, besides the bytes of images and tensors.

Items of one server describe themselves in the same few ways, so that descriptions, whatever there
is to say, cost nothing after the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from interfaces.messages import from_json, to_json


@dataclass(frozen=True)
class EncodedImage:
    """An item whose data are bytes.

    Attributes:
        keys: what the item has under each key that goes along; None where it lacks the key.
    """

    keys: list[Any]


@dataclass(frozen=True)
class TensorData:
    """An item whose data are a tensor.

    Attributes:
        dtype: its type, as `tensor_bytes.as_array` names it.
        shape: of the array in memory.
        channels_last: whether that is N x H x W x C for a tensor of N x C x H x W.
        keys: as in `EncodedImage`.
    """

    dtype: str
    shape: list[int]
    channels_last: bool
    keys: list[Any]


@dataclass(frozen=True)
class Results:
    """An item's result; the times in ms and then the arrays are the bytes.

    Attributes:
        times: names of the stage times.
        arrays: type and shape of each array, as `tensor_bytes.as_array` gives them.
        is_list: whether the result is a list of tensors.
    """

    times: list[str]
    arrays: list[tuple[str, list[int]]]
    is_list: bool


@dataclass(frozen=True)
class Failure:
    """Why an item has no result; the times in ms are the bytes.

    Attributes:
        times: names of the stage times.
        node: where it failed, or None.
        cause: name of the exception's class.
        message: what the exception says.
    """

    times: list[str]
    node: str | None
    cause: str
    message: str


Content: TypeAlias = EncodedImage | TensorData | Results | Failure
_KINDS = (EncodedImage, TensorData, Results, Failure)


@lru_cache(maxsize=256)
def described(kind: type, *fields: Any) -> bytes:
    """A description of that kind, as it lies in the slot; tuples stand for lists."""
    return to_json(kind(*fields)).encode()


@lru_cache(maxsize=256)
def parsed(text: bytes) -> Content:
    """The description that `described` gave."""
    content: Content = from_json(text, _KINDS)
    return content
