"""Reading ONNX files: every way in which a file is not a usable model gets its own sentence."""

from __future__ import annotations

import hashlib
from difflib import get_close_matches
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data

from engine.interface import EngineError

# A protobuf message, and so a model that is held in one piece, ends here.
MAX_MODEL_BYTES = 2**31 - 1
# The first byte of an ONNX file: the tag of `ModelProto.ir_version`, which is written first.
_FIRST_BYTE = b"\x08"
# Before this opset, Mul and Add did not broadcast, and no engine here reads such models.
_OLDEST_OPSET = 7


def read_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, with its external data.

    Args:
        path: an ONNX file.

    Returns:
        The model, and the SHA-256 of the file followed by its external data files, if it has any.

    Raises:
        EngineError: there is no such file, it is not an ONNX model, it is larger than 2 GiB, or a
            file with its external data is missing.
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
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"{path} is not a valid ONNX model: {reason}") from error
    return proto, digest.hexdigest()


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise EngineError(f"{path} is a folder; name an ONNX file")
    if not path.exists():
        raise EngineError(f"no model file {path}{_closest_file(path)}")
    size_bytes = path.stat().st_size
    if not path.is_file() or size_bytes == 0:
        raise EngineError(f"{path} is not an ONNX model: it is empty or not a regular file")
    if size_bytes > MAX_MODEL_BYTES:
        raise EngineError(f"{path} has {size_bytes} bytes; a model may have {MAX_MODEL_BYTES}")
    try:
        with path.open("rb") as file:
            # Looked at before the rest is read: a wrong file may be large.
            if (first := file.read(1)) != _FIRST_BYTE:
                raise EngineError(f"{path} is not an ONNX model: it starts with byte {first!r}")
            return first + file.read()
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error


def _closest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    closest = get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.with_name(closest[0])}?" if closest else ""


def _load_external_data(proto: onnx.ModelProto, path: Path, digest: hashlib._Hash) -> None:
    tensors = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    locations = {
        entry.value
        for tensor in tensors
        for entry in tensor.external_data
        if entry.key == "location"
    }
    total_bytes = path.stat().st_size
    for location in sorted(locations):
        data_file = path.parent / location
        # onnx itself refuses these, too, but only after the digest has read them.
        if not data_file.resolve().is_relative_to(path.parent.resolve()):
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
