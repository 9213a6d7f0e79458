"""Models that come with a name: `open_model` gives them as ONNX."""

from engine.zoo.store import DEFAULT_MODEL, ZOO, open_model, outline

ZOO_NAMES = tuple(ZOO)

__all__ = ["DEFAULT_MODEL", "ZOO_NAMES", "open_model", "outline"]
