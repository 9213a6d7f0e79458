"""The torchpipe-style runtime: a TOML file of nodes becomes a thread-safe callable."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.backends.filters import Status, register_filter
    from pipeline.backends.python_backend import PythonBackend, register_backend
    from pipeline.callable_pipe import Pipe, pipe
    from pipeline.errors import (
        DeadlinePassedError,
        ElementError,
        ItemError,
        ItemsFailedError,
        NodeError,
        NoInstanceError,
        NoResultError,
        PipelineConfigError,
        PipelineInputError,
    )
    from pipeline.keys import (
        TASK_DATA_KEY,
        TASK_ERROR_KEY,
        TASK_NODE_NAME_KEY,
        TASK_REQUEST_SIZE_KEY,
        TASK_RESULT_KEY,
        TASK_RESULTS_KEY,
        TASK_STAGE_TIMES_KEY,
    )

__all__ = [
    "TASK_DATA_KEY",
    "TASK_ERROR_KEY",
    "TASK_NODE_NAME_KEY",
    "TASK_REQUEST_SIZE_KEY",
    "TASK_RESULTS_KEY",
    "TASK_RESULT_KEY",
    "TASK_STAGE_TIMES_KEY",
    "DeadlinePassedError",
    "ElementError",
    "ItemError",
    "ItemsFailedError",
    "NoInstanceError",
    "NoResultError",
    "NodeError",
    "Pipe",
    "PipelineConfigError",
    "PipelineInputError",
    "PythonBackend",
    "Status",
    "pipe",
    "register_backend",
    "register_filter",
]

# The first that has a name defines it.
_MODULES = ("errors", "keys", "callable_pipe", "backends.filters", "backends.python_backend")


def __getattr__(name: str) -> Any:
    """One of the names above, loaded when it is first used.

    torch takes seconds, for which `python -m pipeline --help` need not wait.
    """
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{module}" for module in _MODULES)):
            if hasattr(module, name):
                globals()[name] = value = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
