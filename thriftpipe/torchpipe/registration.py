"""Backends and filters in Python, registered as torchpipe's users do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pipeline
from pipeline.backends.filters import Status
from thriftpipe.torchpipe.configuration import as_text

_BACKENDS: dict[str, _Registered] = {}
_FILTERS: dict[str, _Registered] = {}


class _Registered:
    """What stands behind a name; torchpipe lets it be registered again.

    Args:
        target: a class, of which every instance gets an object of its own, or an object for all.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def make(self) -> Any:
        """The object of an instance."""
        return self.target() if isinstance(self.target, type) else self.target


def register_backend(class_def: Any, register_name: Any = None) -> Any:
    """Make a class known as a backend: `register_backend(cls, "Name")`.

    It has `forward(items)`, which sets `result` of each item from its `data`; it may have
    `init(config)` or `init(config, options)`, which gets the settings of its node as text, and
    `min` and `max`, the fewest and most items of a `forward`, as methods or numbers. A name may be
    registered again: pipes that are loaded afterwards get the newer class.

    Args:
        class_def: the class, or an object that all instances share.
        register_name: its name in expressions; the class's own if it is None.

    Raises:
        TypeError: it lacks something.
        ValueError: the name is that of one of this project's own backends.
    """
    if isinstance(class_def, str):
        if register_name is None:
            return lambda decorated: register_backend(decorated, class_def)
        class_def, register_name = register_name, class_def
    name = _name_of(class_def, register_name)
    _check(class_def, name)
    if name in _BACKENDS:
        _BACKENDS[name].target = class_def
        return class_def
    registered = _Registered(class_def)

    class Adapter:
        """Calls one object as torchpipe does."""

        def __init__(self) -> None:
            self._object = registered.make()

        def init(self, config: Mapping[str, Any]) -> None:
            _initialise(self._object, config, name)

        def forward(self, items: list[dict[str, Any]]) -> None:
            self._object.forward(items)

        def min(self) -> int:
            return _count(self._object, "min")

        def max(self) -> int:
            return _count(self._object, "max")

    # Messages name the class by it.
    Adapter.__name__ = name
    pipeline.register_backend(Adapter, name)
    _BACKENDS[name] = registered
    return class_def


def register(name: str, object_or_type: Any) -> None:
    """Torchpipe main's order of `register_backend`: the name, then the class or an object."""
    register_backend(object_or_type, _name_of(object_or_type, name))


def is_registered_here(name: str) -> bool:
    """Whether a backend in Python was registered under that name."""
    return name in _BACKENDS


def register_filter(class_def: Any, register_name: str | None = None) -> Any:
    """Make a filter known: `register_filter(cls, "name")`.

    The class has `forward(item)`, which gives a Status, and may have `init(config)` or
    `init(config, options)`; a plain function of an item does as well, also under the decorator
    `@register_filter("name")`. A name may be registered again.

    Raises:
        TypeError: it lacks something.
        ValueError: the name is that of one of this project's own filters.
    """
    if isinstance(class_def, str):
        return lambda decorated: register_filter(decorated, class_def)
    name = _name_of(class_def, register_name)
    if not inspect.isroutine(class_def):
        _check(class_def, name)
    if name in _FILTERS:
        _FILTERS[name].target = class_def
        return class_def
    registered = _FILTERS[name] = _Registered(class_def)

    class Adapter:
        """Asks one object, or a function, as torchpipe does."""

        def init(self, config: Mapping[str, Any]) -> None:
            target = registered.make()
            if inspect.isroutine(target):
                self._forward: Callable[[dict[str, Any]], Status] = target
                return
            _initialise(target, config, name)
            self._forward = target.forward

        def forward(self, item: dict[str, Any]) -> Status:
            return self._forward(item)

    pipeline.register_filter(name)(Adapter)
    return class_def


def _name_of(target: Any, name: object) -> str:
    """The name that was given, or the class's own where that is None."""
    if name is None:
        return str(getattr(target, "__name__", type(target).__name__))
    if not isinstance(name, str):
        raise TypeError(f"a name is a text, got {type(name).__name__}")
    if not name:
        raise ValueError("a name must not be empty")
    return name


def _check(target: Any, name: str) -> None:
    """TypeError unless a class, or an object, can be a backend or a filter."""
    if not callable(getattr(target, "forward", None)):
        raise TypeError(f"{name} has no forward method")
    if not isinstance(target, type):
        return
    try:
        inspect.signature(target).bind()
    except TypeError as error:
        raise TypeError(f"{name}() must work without arguments: {error}") from error


def _initialise(target: Any, config: Mapping[str, Any], name: str) -> None:
    init: Callable[..., Any] | None = getattr(target, "init", None)
    if init is None:
        return
    texts = {key: as_text(value) for key, value in config.items() if value is not None}
    try:
        inspect.signature(init).bind(texts)
    except TypeError:
        given = init(texts, None)
    else:
        given = init(texts)
    if given is False:
        raise RuntimeError(f"{name}.init gave False")


def _count(target: Any, which: str) -> int:
    value = getattr(target, which, 1)
    count: int = value() if callable(value) else value
    return count
