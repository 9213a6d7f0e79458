"""torchpipe's names that cannot exist here: each says so, and what to use instead, when used."""

from __future__ import annotations

from typing import NoReturn

from thriftpipe.torchpipe.errors import NotHereError

_CPP = (
    "there is no C++ part to compile against: write the backend or filter in Python, with "
    "torchpipe.register_backend(cls, name) or torchpipe.register_filter(cls, name)"
)
_QUEUE = "it hands the tokens of language models out: use queue.Queue"
_LLM = "this project serves images, not language models"
_TENSORRT = 'the backend "TensorrtTensor" builds, keeps and runs the engine'

ABSENT = {
    "utils.cpp_extension.load": _CPP,
    "utils.cpp_extension.load_backend": _CPP,
    "utils.cpp_extension.load_filter": _CPP,
    "utils.load": _CPP,
    "ffi": _CPP,
    "libinfo": _CPP,
    "group_registry": _CPP,
    "get_include_dirs": _CPP,
    "get_library_dir": _CPP,
    "extra_include_paths": _CPP,
    "extra_ldflags": _CPP,
    "serve": _LLM,
    "default_page_table": _LLM,
    "ThreadSafeKVStorage": "it keeps requests of language models: use a dict and a threading.Lock",
    "ThreadSafeDict": "use a dict and a threading.Lock",
    "ThreadSafeQueueInt": _QUEUE,
    "ThreadSafeQueueLong": _QUEUE,
    "ThreadSafeQueueShort": _QUEUE,
    "ThreadSafeQueueFloat": _QUEUE,
    "ThreadSafeQueueDouble": _QUEUE,
    "ThreadSafeQueueUnsignedInt": _QUEUE,
    "Any": "items hold plain Python values: use them as they are",
    "TypedDict": "items are dictionaries: use a dict, or torchpipe.Dict",
    "encrypt": (
        "models are not encrypted, their caches are: give the node a model::cache whose name ends "
        'in ".encrypted", and the key in THRIFTPIPE_CACHE_KEY or model::key_file'
    ),
    "backends.trt_utils": _TENSORRT,
    "backends.cuda_utils": _TENSORRT,
    "backends.py_tensorrt": _TENSORRT,
    "backends.PySyncTensor": "every instance has its thread and its stream: leave it out",
    "backends.PyTensorrtInferTensor": _TENSORRT,
    "backends.PyTensorrtEngine": _TENSORRT,
    "utils.model_helper": "it downloads models and data sets: use python -m loadtest",
    "utils.benchmark": "use python -m pipeline bench, or python -m loadtest",
    "utils.encrypt": "see torchpipe.encrypt",
    "tool.vis": "use python -m pipeline show FILE",
    "tool.gpu_train_tools": "it feeds training: use torch.utils.data",
    "tool.process_tools": "use python -m service --workers N",
    "tool.cpp_tools": _CPP,
}
"""Why, and what instead, by name within the package."""


class Absent:
    """Stands for such a name, so that importing it costs nothing; using it raises.

    Args:
        name: the name within the package.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<torchpipe.{self._name}, which is not here>"

    def __call__(self, *arguments: object, **keywords: object) -> NoReturn:
        """Raise a NotHereError."""
        del arguments, keywords
        raise not_here(self._name)

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise not_here(self._name)

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        raise not_here(self._name)


def not_here(name: str) -> NotHereError:
    """What using that name raises."""
    return NotHereError(f"torchpipe.{name} is not in thriftpipe: {ABSENT[name]}")
