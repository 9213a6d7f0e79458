"""From a backend expression to backend objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pipeline.backends  # noqa: F401 (importing registers them)
from pipeline.backends.containers import Sequential, Torch
from pipeline.backends.filters import DEFAULT_FILTER, filter_named
from pipeline.backends.identity import Identity
from pipeline.backends.interface import Backend, Container
from pipeline.backends.registry import backend_class
from pipeline.errors import PipelineConfigError
from pipeline.language.expression import Expression
from pipeline.language.settings import Setting
from pipeline.language.torchpipe_names import BACKEND, unknown_key, why_ignored


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
    if _is_stream_word(expression):
        backend: Backend = Identity()
    elif issubclass(cls, Container) and not expression.arguments:
        raise PipelineConfigError(
            f"{expression.name} needs backends in brackets: {expression.name}[...]"
        )
    elif issubclass(cls, Sequential):
        members = _without_stream_words(expression.arguments)
        backend = cls(
            [_build(member) for member in members],
            ends_in_identity=members[-1] is not expression.arguments[-1],
        )
    elif issubclass(cls, Container):
        backend = cls([build_backend(inner) for inner in expression.arguments])
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


def _is_stream_word(expression: Expression) -> bool:
    """Whether it is a Torch without brackets: torchpipe waits for its stream there."""
    return issubclass(backend_class(expression.name), Torch) and not expression.arguments


def _without_stream_words(members: Sequence[Expression]) -> list[Expression]:
    """A sequence's members without those that hand on their data and change nothing else.

    One with a filter decides something, and one in front of a filter lets no item pass that has no
    result. These stay, and so does the only member.
    """
    filters = [member.filter or DEFAULT_FILTER for member in members]
    kept = [
        member
        for position, member in enumerate(members)
        if not _is_stream_word(member) or {DEFAULT_FILTER} != set(filters[position : position + 2])
    ]
    return kept or [members[0]]


def expression_settings(expression: Expression) -> list[Setting]:
    """The settings that the backends of an expression read from their node."""
    build_backend(expression)  # an expression that cannot be built is refused here
    return [setting for name in expression.names() for setting in backend_class(name).settings]


def takes_all_keys(expression: Expression) -> bool:
    """Whether a backend of the expression gets every key of its node."""
    return any(backend_class(name).takes_all_keys for name in expression.names())


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


def without_effect(expression: Expression) -> Iterator[str]:
    """One message for each of torchpipe's names in an expression that does nothing here."""
    if (reason := why_ignored(expression.name, BACKEND)) is not None:
        yield f"{expression.name} does nothing here: {reason}"
    if not takes_all_keys(expression):
        for key, _ in expression.settings:
            if (reason := why_ignored(key)) is not None:
                yield f"{expression.name}(...): {key} is ignored: {reason}"
    for inner in expression.arguments:
        yield from without_effect(inner)


def _own_settings(expression: Expression) -> dict[str, Any]:
    """The typed settings in an expression's parentheses."""
    known = {
        setting.name: setting
        for name in expression.names()
        for setting in backend_class(name).settings
    }
    own: dict[str, Any] = {}
    for key, text in expression.settings:
        if key not in known and takes_all_keys(expression):
            own[key] = text
            continue
        if key not in known and why_ignored(key) is not None:
            continue
        if key not in known:
            raise PipelineConfigError(f"{expression.name}(...): {unknown_key(key, known)}")
        own[key] = known[key].parse(text, f"{expression.name}(...)")
    return own
