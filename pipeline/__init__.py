"""The torchpipe-style runtime: a TOML file of nodes becomes a thread-safe callable."""

from pipeline.backends.filters import Status, register_filter
from pipeline.backends.python_backend import PythonBackend, register_backend
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
from pipeline.pipe import Pipe, pipe

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
