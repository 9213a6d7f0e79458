"""Backends by name: one dictionary, one decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.backends.interface import Backend
from pipeline.errors import PipelineConfigError
from pipeline.language.settings import Setting
from pipeline.language.torchpipe_names import BACKEND, unknown_backend, why_ignored

_BackendClass = TypeVar("_BackendClass", bound=type[Backend])

_BACKENDS: dict[str, type[Backend]] = {}


def register(*names: str) -> Callable[[_BackendClass], _BackendClass]:
    """Make a backend known under its names; the first is the one that messages use."""

    def add(backend_class: _BackendClass) -> _BackendClass:
        for name in names:
            if name in _BACKENDS:
                raise ValueError(f"backend {name!r} is registered already")
            _BACKENDS[name] = backend_class
        return backend_class

    return add


def backend_class(name: str) -> type[Backend]:
    """The backend of that name; PipelineConfigError says what to use if there is none."""
    try:
        return _BACKENDS[name]
    except KeyError:
        raise PipelineConfigError(unknown_backend(name, registered_backends())) from None


def registered_backends() -> dict[str, type[Backend]]:
    """Every backend by each of its names, but for those that torchpipe has and that do nothing."""
    return {n: cls for n, cls in _BACKENDS.items() if why_ignored(n, BACKEND) is None}


def backend_names() -> frozenset[str]:
    """All names that expressions may have."""
    return frozenset(_BACKENDS)


def backend_settings() -> dict[str, Setting]:
    """Every setting that some backend reads, by name."""
    classes = dict.fromkeys(_BACKENDS.values())
    return {setting.name: setting for cls in classes for setting in cls.settings}
