"""From a backend expression to backend objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pipeline.backends  # noqa: F401 (importing registers them)
from pipeline.backend import Backend, Container
from pipeline.errors import PipelineConfigError
from pipeline.expression import Expression
from pipeline.filters import filter_named
from pipeline.registry import backend_class
from pipeline.settings import Setting
from pipeline.torchpipe_names import unknown_key

# The containers whose members may have a filter in front.
_SEQUENCES = frozenset({"S", "Sequential"})


def build_backend(expression: Expression) -> Backend:
    """The backend objects of an expression, not yet initialised.

    Raises:
        PipelineConfigError: an unknown backend or filter, brackets behind a backend that takes
            none or none behind one that needs them, a setting that the backend does not read, or a
            filter outside of a sequence.
    """
    if expression.filter is not None:
        raise PipelineConfigError(
            f"({expression.filter}) stands before {expression.name}, which is no member of S[...]: "
            f'give the node filter = "{expression.filter}" instead'
        )
    return _build(expression)


def _build(expression: Expression) -> Backend:
    cls = backend_class(expression.name)
    if issubclass(cls, Container):
        if not expression.arguments:
            raise PipelineConfigError(
                f"{expression.name} needs backends in brackets: {expression.name}[...]"
            )
        build = _build if expression.name in _SEQUENCES else build_backend
        backend: Backend = cls([build(inner) for inner in expression.arguments])
    elif expression.arguments:
        raise PipelineConfigError(
            f"{expression.name} takes no backends in brackets; to run them in turn write "
            f"S[{expression.name},{','.join(map(str, expression.arguments))}]"
        )
    else:
        backend = cls()
    if expression.filter is not None:
        filter_named(expression.filter)
        backend.filter = expression.filter
    if expression.settings:
        backend.own_settings = _own_settings(expression)
    return backend


def expression_settings(expression: Expression) -> list[Setting]:
    """The settings that the backends of an expression read from their node."""
    build_backend(expression)  # an expression that cannot be built is refused here
    return [setting for name in expression.names() for setting in backend_class(name).settings]


def runs_on_gpu(expression: Expression, settings: Mapping[str, Any], engine: str) -> bool:
    """Whether a backend of the expression enqueues work on a GPU.

    Raises:
        EngineError: there is no such engine.
    """
    return any(cls.runs_on_gpu(own, engine) for cls, own in _classes(expression, settings))


def settings_of(
    backend: str, expression: Expression, settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The settings that the backend of that name, which is in the expression, will get."""
    wanted = backend_class(backend)
    return next(own for cls, own in _classes(expression, settings) if cls is wanted)


def takes_turns(expression: Expression) -> bool:
    """Whether the instances of the expression have to take turns at something."""
    return any(backend_class(name).takes_turns for name in expression.names())


def fitting_instance_num(
    expression: Expression, instance_num: int, settings: Mapping[str, Any], engine: str
) -> int:
    """How many instances of the expression make sense here: what its pickiest backend says.

    Raises:
        EngineError: there is no such engine.
    """
    return min(
        cls.fitting_instance_num(instance_num, own, engine)
        for cls, own in _classes(expression, settings)
    )


def _classes(
    expression: Expression, settings: Mapping[str, Any]
) -> Iterator[tuple[type[Backend], Mapping[str, Any]]]:
    """Every backend of the expression with the settings that it will get."""
    if expression.settings:
        settings = {**settings, **_own_settings(expression)}
    yield backend_class(expression.name), settings
    for inner in expression.arguments:
        yield from _classes(inner, settings)


def _own_settings(expression: Expression) -> dict[str, Any]:
    """The typed settings in an expression's parentheses."""
    known = {
        setting.name: setting
        for name in expression.names()
        for setting in backend_class(name).settings
    }
    own = {}
    for key, text in expression.settings:
        if key not in known:
            raise PipelineConfigError(f"{expression.name}(...): {unknown_key(key, known)}")
        own[key] = known[key].parse(text, f"{expression.name}(...)")
    return own
