"""The names of omniback, on which torchpipe main builds: backends without a pipe around them."""

from __future__ import annotations

import queue
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from pipeline.backends.registry import backend_class
from pipeline.errors import PipelineConfigError
from pipeline.language.expression import parse_expression
from thriftpipe.torchpipe.configuration import parse_toml
from thriftpipe.torchpipe.errors import ConfigError
from thriftpipe.torchpipe.pipes import Interpreter, pipe
from thriftpipe.torchpipe.registration import is_registered_here

_INTERPRETER = "Interpreter"
_NAMED: dict[str, Backend] = {}


class Backend:
    """A backend by itself, such as `init("S[DecodeMat,ResizeMat]", {...})` makes it.

    Args:
        name: its expression, or "Interpreter" for a whole configuration.
    """

    def __init__(self, name: str = "Identity") -> None:
        self._name = name
        self._interpreter: Interpreter | None = None

    def init(
        self, params: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
    ) -> Backend:
        """Load it.

        Args:
            params: its settings.
            options: for an Interpreter it may have the configuration under `config`.

        Raises:
            ConfigError: it cannot be loaded, and why.
        """
        params = dict(params or {})
        document: Mapping[str, Any] = params
        if self._name == _INTERPRETER:
            document = dict((options or {}).get("config", params))
        else:
            document = {**params, "Interpreter::backend": self._name}
        interpreter = Interpreter()
        interpreter.init(document)
        self._interpreter = interpreter
        return self

    def forward(self, ios: Sequence[MutableMapping[str, Any]]) -> None:
        """Run several items, which are filled in place."""
        self(ios)

    def __call__(self, ios: MutableMapping[str, Any] | Sequence[MutableMapping[str, Any]]) -> None:
        """Run one item or several, which are filled in place; as an Interpreter."""
        if not isinstance(ios, MutableMapping) and isinstance(ios, list | tuple) and not ios:
            raise ValueError("the list of items is empty")
        self._ready()(ios)

    def max(self) -> int:
        """Most items of a call."""
        return self._ready().max()

    def min(self) -> int:
        """Fewest items of a call."""
        return self._ready().min()

    def _ready(self) -> Interpreter:
        if self._interpreter is None:
            raise ConfigError(f"{self._name} is not loaded: call init(params) first")
        return self._interpreter


def create(name: str, register_name: str | None = None) -> Backend:
    """A backend that is not loaded yet.

    Args:
        name: its expression, or "Interpreter".
        register_name: a name for `get`.

    Raises:
        ConfigError: there is no such backend.
    """
    if name != _INTERPRETER:
        try:
            for one in parse_expression(name).names():
                backend_class(one)
        except PipelineConfigError as error:
            raise ConfigError(str(error)) from error
    backend = Backend(name)
    if register_name is not None:
        _NAMED[register_name] = backend
    return backend


def init(
    name: str,
    params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    register_name: str | None = None,
) -> Backend:
    """A backend, loaded; the arguments are those of `create` and `Backend.init`."""
    return create(name, register_name).init(params, options)


def get(name: str) -> Backend:
    """The backend that was created, or an object that was registered, under a name.

    Raises:
        KeyError: there is none.
    """
    if name not in _NAMED and is_registered_here(name):
        _NAMED[name] = init(name)
    try:
        return _NAMED[name]
    except KeyError:
        known = ", ".join(sorted(_NAMED)) or "none"
        raise KeyError(f"no backend was created as {name!r}; there is: {known}") from None


parse = parse_group = parse_toml


def init_from_file(file_path: str) -> pipe:
    """The pipe of a TOML file."""
    return pipe(file_path)


class Queue(queue.SimpleQueue[Any]):
    """A queue between threads."""

    size = queue.SimpleQueue.qsize

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The oldest value; RuntimeError if there is none (any more)."""
        try:
            return super().get(block, timeout)
        except queue.Empty:
            raise RuntimeError("the queue is empty") from None


_QUEUES: dict[str, Queue] = {}


def default_queue(tag: str = "") -> Queue:
    """The process's queue of that name."""
    return _QUEUES.setdefault(tag, Queue())
