"""The torchpipe-style runtime: a TOML file of nodes becomes a thread-safe callable."""

from pipeline.errors import (
    DeadlinePassedError,
    NodeError,
    PipelineConfigError,
    PipelineInputError,
)
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_NODE_NAME_KEY,
    TASK_RESULT_KEY,
    TASK_STAGE_TIMES_KEY,
)
from pipeline.pipe import Pipe, pipe

__all__ = [
    "TASK_DATA_KEY",
    "TASK_ERROR_KEY",
    "TASK_NODE_NAME_KEY",
    "TASK_RESULT_KEY",
    "TASK_STAGE_TIMES_KEY",
    "DeadlinePassedError",
    "NodeError",
    "Pipe",
    "PipelineConfigError",
    "PipelineInputError",
    "pipe",
]
