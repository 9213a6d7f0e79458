"""Layers of a graph that a setting names by parts of their names."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from engine.errors import EngineError
from interfaces.names import closest_name_hint


def layer_name(node: onnx.NodeProto) -> str:
    """The name of a layer: its own, or that of its first output where it has none."""
    return str(node.name or node.output[0])


def named_layers(proto: onnx.ModelProto, parts: Sequence[str], setting: str) -> set[str]:
    """The names of the layers that have one of `parts` in their name.

    Args:
        proto: the model.
        parts: parts of layer names, such as "layer1" or "/fc/Gemm".
        setting: what the parts were given as, for the error message.

    Raises:
        EngineError: a part is in no layer's name.
    """
    names = [layer_name(node) for node in proto.graph.node]
    found: set[str] = set()
    for part in parts:
        matching = {name for name in names if part in name}
        if not matching:
            raise EngineError(
                f"{setting}: {part!r} is part of no layer's name"
                f"{closest_name_hint(part, _name_parts(names))} The graph has {len(names)} layers, "
                f"from {names[0]!r} to {names[-1]!r}"
            )
        found |= matching
    return found


def _name_parts(names: Sequence[str]) -> list[str]:
    """Whole names, and what stands between their separators."""
    parts = {part for name in names for part in name.replace(".", "/").split("/") if part}
    return sorted({*names, *parts})
