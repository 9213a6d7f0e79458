"""torchpipe v0's `torchpipe.libipipe`, also known as `torchpipe._C`."""

from __future__ import annotations

from pipeline.backends.filters import Status
from thriftpipe.torchpipe.absent import Absent
from thriftpipe.torchpipe.configuration import parse_toml
from thriftpipe.torchpipe.event import Event
from thriftpipe.torchpipe.facts import (
    WITH_CUDA,
    WITH_OPENVINO,
    WITH_TENSORRT,
    get_sm,
    infer_shape,
    is_registered,
    list_backends,
    supported_opset,
)
from thriftpipe.torchpipe.item import Dict
from thriftpipe.torchpipe.keys import (
    TASK_BOX_KEY,
    TASK_DATA_KEY,
    TASK_EVENT_KEY,
    TASK_INFO_KEY,
    TASK_NODE_NAME_KEY,
    TASK_RESULT_KEY,
)
from thriftpipe.torchpipe.pipes import Interpreter
from thriftpipe.torchpipe.registration import register_backend, register_filter

Any = Absent("Any")
TypedDict = Absent("TypedDict")
encrypt = Absent("encrypt")
ThreadSafeKVStorage = Absent("ThreadSafeKVStorage")
ThreadSafeDict = Absent("ThreadSafeDict")
ThreadSafeQueueInt = Absent("ThreadSafeQueueInt")
ThreadSafeQueueLong = Absent("ThreadSafeQueueLong")
ThreadSafeQueueShort = Absent("ThreadSafeQueueShort")
ThreadSafeQueueFloat = Absent("ThreadSafeQueueFloat")
ThreadSafeQueueDouble = Absent("ThreadSafeQueueDouble")
ThreadSafeQueueUnsignedInt = Absent("ThreadSafeQueueUnsignedInt")

__all__ = [
    "TASK_BOX_KEY",
    "TASK_DATA_KEY",
    "TASK_EVENT_KEY",
    "TASK_INFO_KEY",
    "TASK_NODE_NAME_KEY",
    "TASK_RESULT_KEY",
    "WITH_CUDA",
    "WITH_OPENVINO",
    "WITH_TENSORRT",
    "Any",
    "Dict",
    "Event",
    "Interpreter",
    "Status",
    "ThreadSafeDict",
    "ThreadSafeKVStorage",
    "ThreadSafeQueueDouble",
    "ThreadSafeQueueFloat",
    "ThreadSafeQueueInt",
    "ThreadSafeQueueLong",
    "ThreadSafeQueueShort",
    "ThreadSafeQueueUnsignedInt",
    "TypedDict",
    "encrypt",
    "get_sm",
    "infer_shape",
    "is_registered",
    "list_backends",
    "parse_toml",
    "register_backend",
    "register_filter",
    "supported_opset",
]
