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
        known = [other for other in _BACKENDS if why_ignored(other, BACKEND) is None]
        raise PipelineConfigError(unknown_backend(name, known)) from None


def backend_names() -> frozenset[str]:
    """All names that expressions may have."""
    return frozenset(_BACKENDS)


def backend_settings() -> dict[str, Setting]:
    """Every setting that some backend reads, by name."""
    classes = dict.fromkeys(_BACKENDS.values())
    return {setting.name: setting for cls in classes for setting in cls.settings}
