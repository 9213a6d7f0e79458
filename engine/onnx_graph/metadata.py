"""What ONNX files say about themselves in their metadata: mean and std, and a note."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from engine.errors import EngineError
from engine.normalization import Normalization, comma_separated

_MEAN_KEY, _STD_KEY = "thriftpipe.mean", "thriftpipe.std"
_NOTE_KEY = "thriftpipe.note"
# ONNX's own (onnx/docs/MetadataProps.md), as mean and std of pixels of 0 to 255.
_PIXEL_RANGE_KEY = "Image.NominalPixelRange"
_PIXEL_RANGES = {
    "nominalrange_0_255": Normalization((0.0,), (1.0,)),
    "normalized_0_1": Normalization((0.0,), (255.0,)),
    "normalized_1_1": Normalization((127.5,), (127.5,)),
}


def declare_normalization(proto: onnx.ModelProto, normalization: Normalization) -> None:
    """Write a normalization into a model's metadata, where `read_normalization` finds it."""
    helper.set_model_props(
        proto,
        {
            _MEAN_KEY: comma_separated(normalization.mean),
            _STD_KEY: comma_separated(normalization.std),
        },
    )


def read_normalization(proto: onnx.ModelProto, path: Path) -> Normalization | None:
    """The normalization that a model's metadata declares, or None.

    Args:
        proto: the model.
        path: its file, for the error message.

    Raises:
        EngineError: the metadata holds one without the other, no numbers, or ones that are no
            normalization for pixels of 0..255.
    """
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    missing = [key for key in (_MEAN_KEY, _STD_KEY) if key not in metadata]
    if len(missing) == 2:
        return _PIXEL_RANGES.get(metadata.get(_PIXEL_RANGE_KEY, "").lower())
    if missing:
        raise EngineError(
            f"{path}: its metadata has {_STD_KEY if missing == [_MEAN_KEY] else _MEAN_KEY} without "
            f"{missing[0]}; mean and std go together: add it, or give both, with --mean and --std "
            f"or in the TOML file"
        )
    try:
        mean, std = (
            tuple(float(text) for text in metadata[key].split(",")) for key in (_MEAN_KEY, _STD_KEY)
        )
    except ValueError as error:
        raise EngineError(f"{path}: {_MEAN_KEY} or {_STD_KEY}: {error}") from error
    try:
        return Normalization(mean, std)
    except EngineError as error:
        raise EngineError(f"{path}: {_MEAN_KEY}, {_STD_KEY}: {error}") from error


def declare_note(proto: onnx.ModelProto, note: str) -> None:
    """Write a note of one line into a model's metadata, where `read_note` finds it."""
    proto.metadata_props.add(key=_NOTE_KEY, value=note)


def read_note(proto: onnx.ModelProto) -> str:
    """The note in a model's metadata, in one line, or ""."""
    notes = (entry.value for entry in proto.metadata_props if entry.key == _NOTE_KEY)
    return " ".join(next(notes, "").split())
