"""Registering backends with what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from thriftpipe.torchpipe import registration


@runtime_checkable
class BackendProtocol(Protocol):
    """What a backend in Python has."""

    def init(self, config: dict[str, str], options: Any = None) -> None:
        """Prepare with the settings of a node, as text."""

    def forward(self, ios: list[Any]) -> None:
        """Set `result` of each item from its `data`."""

    def max(self) -> int:
        """Most items of a `forward`."""

    def min(self) -> int:
        """Fewest items of a `forward`."""


@dataclass
class BackendMeta:
    """What a backend's author says of it; nothing depends on it."""

    name: str
    version: str = "1.0.0"
    description: str = ""
    author: str = ""
    tags: list[str] = field(default_factory=list)
    requires_cuda: bool = False
    supports_dynamic_shape: bool = False
    supports_multi_instance: bool = False


_CLASSES: dict[str, type] = {}
_META: dict[str, BackendMeta] = {}


def register_backend(
    name: str,
    backend_class: type | None = None,
    meta: BackendMeta | None = None,
    *,
    lazy: bool = False,
    singleton: bool = False,
) -> Any:
    """Register a class under a name, as a call or as a decorator.

    Args:
        name: its name in expressions.
        backend_class: the class; None for a decorator.
        meta: what is known of it.
        lazy: every object is made when its node is loaded, whatever this says.
        singleton: whether all instances share one object.
    """
    del lazy
    if backend_class is None:
        return lambda cls: register_backend(name, cls, meta, singleton=singleton)
    registration.register(name, backend_class() if singleton else backend_class)
    _CLASSES[name] = backend_class
    _META[name] = meta or BackendMeta(name)
    return backend_class


def backend(name: str, meta: BackendMeta | None = None) -> Callable[[type], type]:
    """A decorator that registers a class."""
    decorator: Callable[[type], type] = register_backend(name, meta=meta)
    return decorator


def get_backend(name: str) -> type | None:
    """The class that was registered here under that name."""
    return _CLASSES.get(name)


def get_backend_meta(name: str) -> BackendMeta | None:
    """What is known of it."""
    return _META.get(name)


def list_backends() -> list[str]:
    """The names that were registered here."""
    return list(_CLASSES)


class BackendBase:
    """A backend that keeps its settings; a subclass has `forward`."""

    def __init__(self) -> None:
        self._initialized = False
        self._config: dict[str, str] = {}
        self._options: Any = None

    def init(self, config: dict[str, str], options: Any = None) -> None:
        """Keep the settings."""
        self._config = config
        self._options = options
        self._initialized = True

    def forward(self, ios: list[Any]) -> None:
        """Set `result` of each item from its `data`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def max(self) -> int:
        """Most items of a `forward`."""
        return 1

    def min(self) -> int:
        """Fewest items of a `forward`."""
        return 1

    def is_initialized(self) -> bool:
        """Whether `init` was called."""
        return self._initialized
