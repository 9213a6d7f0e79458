"""Values of items as JSON, in a form in which those of both runtimes can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def to_plain(value: object) -> Any:
    """A value as JSON takes it; equal values become equal.

    Tensors and matrices become their dtype, shape and bytes, of whichever library they are.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return {"map": {str(key): to_plain(one) for key, one in value.items()}}
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value)
    if isinstance(value, Sequence):
        return [to_plain(one) for one in value]
    return {"object": type(value).__name__}


def from_plain(plain: Any) -> Any:
    """The value that `to_plain` has written; arrays become tensors."""
    if isinstance(plain, list):
        return [from_plain(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    if "bytes" in plain:
        return bytes.fromhex(plain["bytes"])
    if "map" in plain:
        return {key: from_plain(one) for key, one in plain["map"].items()}
    if "array" in plain:
        import torch

        dtype, shape, data = plain["array"]
        flat = torch.frombuffer(bytearray.fromhex(data), dtype=getattr(torch, dtype))
        return flat.reshape(shape)
    raise ValueError(f"no value can be made of {plain!r:.100}")


def _array(value: Any) -> dict[str, Any]:
    if hasattr(value, "__dlpack__") and not hasattr(value, "tobytes"):
        from torch.utils.dlpack import from_dlpack

        value = from_dlpack(value)
    numpy = value.numpy() if hasattr(value, "numpy") else value
    return {"array": [str(numpy.dtype), list(numpy.shape), numpy.tobytes().hex()]}
