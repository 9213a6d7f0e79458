"""torchpipe's names for the keys of an item.

Where the two lines differ, the value is that of the older one, which alone gives them to Python.
"""

from __future__ import annotations

from pipeline.keys import (
    TASK_BOX_KEY,
    TASK_COLOR_KEY,
    TASK_CONTEXT_KEY,
    TASK_CPU_RESULT_KEY,
    TASK_DATA_KEY,
    TASK_EVENT_KEY,
    TASK_INFO_KEY,
    TASK_NODE_NAME_KEY,
    TASK_OUTPUT_KEY,
    TASK_REQUEST_ID_KEY,
    TASK_REQUEST_KEY,
    TASK_REQUEST_SIZE_KEY,
    TASK_RESULT_KEY,
    TASK_TMP_KEY,
)

TASK_STACK_KEY = "_stack"
TASK_RESTART_KEY = "restart"
TASK_WAITING_EVENT_KEY = "waiting_event"
TASK_STATUS_KEY = "status"
TASK_MSG_KEY = "MSG"
TASK_ENTRY_KEY = "entrypoint"
TASK_INDEX_KEY = "_independent_index"
TASK_DEFAULT_NAME_KEY = "_default_node_name"
TASK_DEFAULT_NODE_NAME_KEY = "default_node_name"
TASK_GLOBAL_KEY = "global"
TASK_CONFIG_KEY = "config"
TASK_NEXT_KEY = "next"
TASK_MAP_KEY = "map"
TASK_OR_KEY = "or"
TASK_STREAM_KEY = "stream"

__all__ = [
    "TASK_BOX_KEY",
    "TASK_COLOR_KEY",
    "TASK_CONFIG_KEY",
    "TASK_CONTEXT_KEY",
    "TASK_CPU_RESULT_KEY",
    "TASK_DATA_KEY",
    "TASK_DEFAULT_NAME_KEY",
    "TASK_DEFAULT_NODE_NAME_KEY",
    "TASK_ENTRY_KEY",
    "TASK_EVENT_KEY",
    "TASK_GLOBAL_KEY",
    "TASK_INDEX_KEY",
    "TASK_INFO_KEY",
    "TASK_MAP_KEY",
    "TASK_MSG_KEY",
    "TASK_NEXT_KEY",
    "TASK_NODE_NAME_KEY",
    "TASK_OR_KEY",
    "TASK_OUTPUT_KEY",
    "TASK_REQUEST_ID_KEY",
    "TASK_REQUEST_KEY",
    "TASK_REQUEST_SIZE_KEY",
    "TASK_RESTART_KEY",
    "TASK_RESULT_KEY",
    "TASK_STACK_KEY",
    "TASK_STATUS_KEY",
    "TASK_STREAM_KEY",
    "TASK_TMP_KEY",
    "TASK_WAITING_EVENT_KEY",
]
