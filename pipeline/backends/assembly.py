"""From a backend expression to backend objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pipeline.backends  # noqa: F401 (importing registers them)
from pipeline.backends.filters import filter_named
from pipeline.backends.interface import Backend, Container
from pipeline.backends.registry import backend_class
from pipeline.errors import PipelineConfigError
from pipeline.language.expression import Expression
from pipeline.language.settings import Setting
from pipeline.language.torchpipe_names import unknown_key

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
    return any(it.cls.runs_on_gpu(it.settings, engine) for it in backends_of(expression, settings))


def settings_of(
    backend: str, expression: Expression, settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The settings that the backend of that name, which is in the expression, will get."""
    wanted = backend_class(backend)
    return next(it.settings for it in backends_of(expression, settings) if it.cls is wanted)


def locks_decoder(expression: Expression) -> bool:
    """Whether only one instance of the expression at a time may decode."""
    return any(backend_class(name).locks_decoder for name in expression.names())


def fitting_instance_num(
    expression: Expression, instance_num: int, settings: Mapping[str, Any], engine: str
) -> int:
    """How many instances of the expression make sense here: what its pickiest backend says.

    Raises:
        EngineError: there is no such engine.
    """
    return min(
        it.cls.fitting_instance_num(instance_num, it.settings, engine)
        for it in backends_of(expression, settings)
    )


@dataclass(frozen=True)
class ConfiguredBackend:
    """A backend of an expression, with the settings that it will get.

    Attributes:
        name: as the expression spells it.
        cls: its class.
        settings: typed values by name: what the expression says, else the node's.
        own: the names of those that the expression says, for this backend or around it.
    """

    name: str
    cls: type[Backend]
    settings: Mapping[str, Any]
    own: frozenset[str]


def backends_of(
    expression: Expression, settings: Mapping[str, Any], own: frozenset[str] = frozenset()
) -> Iterator[ConfiguredBackend]:
    """Every backend of the expression, outermost first.

    Args:
        expression: the backends.
        settings: the node's.
        own: the names of those that are in an expression around this one.
    """
    if expression.settings:
        given = _own_settings(expression)
        settings, own = {**settings, **given}, own | given.keys()
    yield ConfiguredBackend(expression.name, backend_class(expression.name), settings, own)
    for inner in expression.arguments:
        yield from backends_of(inner, settings, own)


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
