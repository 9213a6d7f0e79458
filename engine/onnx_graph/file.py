"""Reading ONNX files: every way in which a file is not a usable model gets its own sentence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data

from engine.cache.bounded_file import UnreadableFileError, open_regular, why_no_file
from engine.errors import EngineError
from engine.onnx_graph.tensors import open_meaningless_sizes
from interfaces.error_text import first_line

# A protobuf message, and so a model that is held in one piece, ends here.
MAX_MODEL_BYTES = 2**31 - 1
# The first byte of an ONNX file: the tag of `ModelProto.ir_version`, which is written first.
_FIRST_BYTE = b"\x08"
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)
# Before this opset, Mul and Add did not broadcast, and no engine here reads such models.
_OLDEST_OPSET = 7
# What TensorRT's users call engines.
_ENGINE_SUFFIXES = {".trt", ".engine", ".plan"}
_ENGINE_HINT = ". Engines are caches here: the ONNX file is model, and this file model::cache"


def read_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, with its external data.

    Args:
        path: an ONNX file.

    Returns:
        The model, and the SHA-256 of the file followed by its external data files, if it has any.

    Raises:
        EngineError: there is no such file, it is not an ONNX model, it is larger than 2 GiB, a
            file with its external data is missing, or weights are NaN.
    """
    content = _read_bytes(path)
    digest = hashlib.sha256(content)
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise EngineError(f"{path} is not an ONNX model: {error}") from error
    if not proto.graph.node or not proto.graph.output:
        raise EngineError(f"{path} is not an ONNX model: it holds no graph")
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version < _OLDEST_OPSET:
            raise EngineError(
                f"{path} uses opset {opset.version}; export it again with opset {_OLDEST_OPSET} "
                f"or later"
            )
    _load_external_data(proto, path, digest)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise EngineError(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    _check_weights(proto, path)
    open_meaningless_sizes(proto)
    return proto, digest.hexdigest()


def read_structure(path: str | Path) -> onnx.ModelProto | None:
    """A model without its external data, or None for a file that `read_onnx` refuses."""
    if not Path(path).is_file():
        return None
    try:
        return onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return None


def size_with_external_data(path: Path) -> int:
    """Bytes of a model's file and its external data, as far as they are there; 0 for no model."""
    proto = read_structure(path)
    if proto is None:
        return 0
    files = [path, *(path.parent / location for location in _external_locations(proto))]
    return sum(file.stat().st_size for file in files if file.is_file())


def _check_weights(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse weights that are NaN: some engines make 0 of it, and an answer like any other."""
    for tensor in proto.graph.initializer:
        if tensor.data_type in _FLOATS:
            # Of bfloat16, which NumPy does not know, this makes float32.
            try:
                values = onnx.numpy_helper.to_array(tensor)
            except ValueError as error:
                raise EngineError(
                    f"{path} is not a valid ONNX model: weights {tensor.name!r}: {error}"
                ) from error
            if count := int(np.count_nonzero(values != values)):
                raise EngineError(
                    f"{path} is damaged: {count} of {values.size} weights {tensor.name!r} are not "
                    f"numbers (NaN), so that no answer would mean anything; export it again"
                )


def _read_bytes(path: Path) -> bytes:
    if reason := why_no_file(path):
        raise EngineError(f"no model: {reason}")
    try:
        with open_regular(path, MAX_MODEL_BYTES) as file:
            # Looked at before the rest is read: a wrong file may be large.
            if (first := file.read(1)) != _FIRST_BYTE:
                how = f"starts with byte {first!r}" if first else "is empty"
                hint = _ENGINE_HINT if path.suffix in _ENGINE_SUFFIXES else ""
                raise EngineError(f"{path} is not an ONNX model: it {how}{hint}")
            return first + file.read()
    except UnreadableFileError as error:
        raise EngineError(f"cannot read the model {path}: {error}") from error
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error


def _external_locations(proto: onnx.ModelProto) -> set[str]:
    """The files beside a model's own that hold its weights."""
    return {
        entry.value
        for tensor in proto.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _load_external_data(proto: onnx.ModelProto, path: Path, digest: hashlib._Hash) -> None:
    locations = _external_locations(proto)
    total_bytes = path.stat().st_size
    for location in sorted(locations):
        data_file = path.parent / location
        # onnx itself refuses these, too, but only after the digest has read them.
        folder = Path(os.path.realpath(path.parent))
        if not Path(os.path.realpath(data_file)).is_relative_to(folder):
            raise EngineError(
                f"{path} keeps its weights in {location!r}, which leads out of its folder; put "
                f"them beside it"
            )
        if not data_file.is_file():
            raise EngineError(
                f"{path} keeps its weights in {location}, which is not beside it in {path.parent}"
            )
        total_bytes += data_file.stat().st_size
        if total_bytes > MAX_MODEL_BYTES:
            raise EngineError(
                f"{path} and its external data are larger than {MAX_MODEL_BYTES} bytes"
            )
        digest.update(data_file.read_bytes())
    if locations:
        try:
            onnx.load_external_data_for_model(proto, str(path.parent))
        except (onnx.checker.ValidationError, ValueError, OSError) as error:
            raise EngineError(f"cannot read the external data of {path}: {error}") from error
