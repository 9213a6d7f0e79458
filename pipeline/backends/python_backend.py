"""Backends in plain Python, as torchpipe's users write them: any class with `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from pipeline.backends.interface import Backend, InstanceConfig, Item
from pipeline.backends.registry import backend_settings, register
from pipeline.keys import TASK_NODE_NAME_KEY
from pipeline.language.settings import SCHEDULING, Setting

_Class = TypeVar("_Class", bound=type)


@runtime_checkable
class PythonBackend(Protocol):
    """What a class has to have that `register_backend` takes.

    It may also have `init(config)`, which gets the node's settings, see `register_backend`, and
    `min()` and `max()`, the fewest and most items of a `forward` (1 and 1).
    All run in the thread of one instance, which has an object of its own.
    """

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set `result` of each item from its `data`.

        After an exception each item runs once more alone, so that only faulty items fail. Raise a
        `pipeline.ItemError` for a faulty input: after three batches without any result for other
        reasons the instance gets a new object; after a KeyboardInterrupt it does so at once.
        """


def register_backend(
    cls: _Class | None = None, name: str | None = None, *, keys: Iterable[str] | None = None
) -> Any:
    """Make a class known as a backend: `register_backend(cls, "Name")`, or as a decorator.

    Args:
        cls: the class.
        name: its name in expressions; the class's own if it is None.
        keys: settings that a node may give it, as the file has them; a key of another backend, such
            as resize_h, arrives as that backend reads it. A key that no backend names is refused at
            load. Without `keys` a node may give it anything: it gets all keys of its node and all
            globals, as the file has them, and `node_name`.

    Raises:
        TypeError: the class lacks something, or has it in another form.
        ValueError: the name is taken, or a key is one of a node's own, such as next.
    """
    if cls is None:
        return lambda decorated: register_backend(decorated, name, keys=keys)
    plain: type = cls
    _check(plain)
    settings = tuple(map(_setting, keys or ()))

    class Adapter(_PythonAdapter):
        """Runs one object of the class."""

        adapted = plain

    Adapter.settings = settings
    Adapter.takes_all_keys = keys is None
    Adapter.__name__ = Adapter.__qualname__ = name or cls.__name__
    register(name or cls.__name__)(Adapter)
    return cls


class _PythonAdapter(Backend):
    """A plain class as a Backend."""

    adapted: ClassVar[type]
    settings: ClassVar[tuple[Setting, ...]] = ()

    def init(self, config: InstanceConfig) -> None:
        """Make the object, and initialise it."""
        self._object: Any = self.adapted()
        if hasattr(self._object, "init"):
            self._object.init(self._keys(config))
        self.min, self.max = (_count(self._object, which) for which in ("min", "max"))
        if self.min > self.max:
            raise TypeError(
                f"{type(self._object).__name__} has min() = {self.min}, more than max() = "
                f"{self.max}"
            )

    def _keys(self, config: InstanceConfig) -> dict[str, Any]:
        if self.takes_all_keys:
            return {**config.written, TASK_NODE_NAME_KEY: config.node}
        return {setting.name: config.settings[setting.name] for setting in self.settings}

    def forward(self, items: Sequence[Item]) -> None:
        """Run one batch."""
        self._object.forward(list(items))


def _setting(key: str) -> Setting:
    """What another backend reads under that key, or whatever stands there."""
    if key in {setting.name for setting in SCHEDULING}:
        raise ValueError(f"{key!r} is a setting of every node, and no backend's own")
    known = backend_settings().get(key)
    return known or Setting(key, lambda value: value, "anything", None)


def _check(cls: type) -> None:
    """TypeError unless the class is a PythonBackend."""
    name = getattr(cls, "__name__", str(cls))
    if not isinstance(cls, type):
        raise TypeError(f"register_backend takes a class, got {cls!r}")
    parameters = {"forward": 1, "init": 1, "min": 0, "max": 0}
    for method, count in parameters.items():
        function: Callable[..., Any] | None = getattr(cls, method, None)
        if function is None:
            if method == "forward":
                raise TypeError(f"{name} has no forward(items), which a backend needs")
            continue
        if not callable(function):
            raise TypeError(f"{name}.{method} is {function!r}: expected a method")
        arguments = [object()] * count
        try:
            inspect.signature(function).bind(object(), *arguments)
        except TypeError as error:
            wanted = "items" if method == "forward" else "config" if count else ""
            raise TypeError(f"{name}.{method} cannot be called as {method}({wanted})") from error


def _count(backend: Any, which: str) -> int:
    value = getattr(backend, which)() if hasattr(backend, which) else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TypeError(
            f"{type(backend).__name__}.{which}() gave {value!r}: expected a whole number of at "
            "least 1"
        )
    return value
