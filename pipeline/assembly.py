"""From a backend expression to backend objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pipeline.backends  # noqa: F401 (importing registers them)
from pipeline.backend import Backend, Container
from pipeline.errors import PipelineConfigError
from pipeline.expression import Expression
from pipeline.registry import backend_class
from pipeline.settings import Setting


def build_backend(expression: Expression) -> Backend:
    """The backend objects of an expression, not yet initialised.

    Raises:
        PipelineConfigError: an unknown backend, brackets behind one that takes none, or none
            behind one that needs them.
    """
    cls = backend_class(expression.name)
    if issubclass(cls, Container):
        if not expression.arguments:
            raise PipelineConfigError(
                f"{expression.name} needs backends in brackets: {expression.name}[...]"
            )
        return cls([build_backend(inner) for inner in expression.arguments])
    if expression.arguments:
        raise PipelineConfigError(
            f"{expression.name} takes no backends in brackets; to run them in turn write "
            f"S[{expression.name},{','.join(map(str, expression.arguments))}]"
        )
    return cls()


def expression_settings(expression: Expression) -> list[Setting]:
    """The settings that the backends of an expression read."""
    build_backend(expression)  # an expression that cannot be built is refused here
    return [setting for name in expression.names() for setting in backend_class(name).settings]


def runs_on_gpu(expression: Expression, settings: Mapping[str, Any], engine: str) -> bool:
    """Whether a backend of the expression enqueues work on a GPU.

    Raises:
        EngineError: there is no such engine.
    """
    return any(backend_class(name).runs_on_gpu(settings, engine) for name in expression.names())


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
        backend_class(name).fitting_instance_num(instance_num, settings, engine)
        for name in expression.names()
    )
