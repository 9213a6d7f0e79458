"""torchpipe's ways to name what runs on the engine's results, in the two that there are here.

v0 has `postprocessor`, of C++ classes, and earlier `net_out_parser`; main has `post_processor`, of
backends. Here `postprocessor` names one of those of `pipeline.backends.postprocessing`, and any
backend may stand behind the engine: S[TensorrtTensor,SoftmaxArgMaxTensor].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.backends.postprocessing import is_postprocessor
from pipeline.backends.registry import backend_names
from pipeline.language.expression import Expression

_POSTPROCESSOR = "postprocessor"
_OTHER_KEYS = ("post_processor", "net_out_parser")
# What they call `postprocessor = "cpu"`.
_COPY_TO_HOST = "CpuTensor"


def split_postprocessor(table: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A node's table with `postprocessor` alone, and the name of a backend in its place, if one is.

    A name that is neither stays under `postprocessor`, which refuses it.
    """
    table = dict(table)
    for key in _OTHER_KEYS:
        if key in table:
            value = table.pop(key)
            table.setdefault(_POSTPROCESSOR, "cpu" if value == _COPY_TO_HOST else value)
    name = table.get(_POSTPROCESSOR)
    if not isinstance(name, str) or is_postprocessor(name) or name not in backend_names():
        return table, None
    del table[_POSTPROCESSOR]
    return table, name


def with_backend_behind_engine(expression: Expression, name: str) -> Expression:
    """The expression with S[TensorrtTensor,NAME] for TensorrtTensor."""
    if expression.name == ENGINE_BACKEND:
        engine = replace(expression, filter=None)
        return Expression("S", (engine, Expression(name)), filter=expression.filter)
    arguments = (with_backend_behind_engine(inner, name) for inner in expression.arguments)
    return replace(expression, arguments=tuple(arguments))
