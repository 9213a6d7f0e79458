"""Models that come with a name: `open_model` gives them as ONNX."""

from interfaces.extras import is_being_started, packages_of

with packages_of("server", is_program=is_being_started()):
    from engine.zoo.store import DEFAULT_MODEL, ZOO, open_model, outline

ZOO_NAMES = tuple(ZOO)

__all__ = ["DEFAULT_MODEL", "ZOO_NAMES", "open_model", "outline"]
