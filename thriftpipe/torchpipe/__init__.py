"""torchpipe's Python API, of both its lines, on this project's runtime.

`import thriftpipe.torchpipe as torchpipe` is the only line that a program has to change; where
torchpipe itself is not installed, later imports of `torchpipe` and what is in it lead here, too.
`python -m thriftpipe.torchpipe SCRIPT` runs a program in which nothing has changed.
"""

from thriftpipe.torchpipe import own_packages as _own_packages  # noqa: F401 (before all others)

# isort: split
from interfaces.extras import is_being_started, packages_of

with packages_of("server", is_program=is_being_started()):
    from pipeline.backends.filters import Status
    from thriftpipe.torchpipe import backends, libipipe, tool, utils
    from thriftpipe.torchpipe.absent import Absent
    from thriftpipe.torchpipe.configuration import parse_toml
    from thriftpipe.torchpipe.errors import BackendError, ConfigError, InputError, NotHereError
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
    from thriftpipe.torchpipe.keys import *  # noqa: F403 (its names are constants that it lists)
    from thriftpipe.torchpipe.keys import __all__ as _keys
    from thriftpipe.torchpipe.naming import lend_names
    from thriftpipe.torchpipe.omniback import (
        Backend,
        Queue,
        create,
        default_queue,
        get,
        init,
        init_from_file,
        parse,
        parse_group,
    )
    from thriftpipe.torchpipe.pipes import Interpreter, pipe
    from thriftpipe.torchpipe.registration import register, register_backend, register_filter
    from thriftpipe.torchpipe.utils.visual import Visual

# The newest of the line that has most of these names; programs compare it with what they need.
__version__ = "0.6.7"

Pipe = pipe
_C = libipipe
ThreadSafeKVStorage = libipipe.ThreadSafeKVStorage
encrypt = libipipe.encrypt
serve = Absent("serve")
default_page_table = Absent("default_page_table")
ffi = Absent("ffi")
libinfo = Absent("libinfo")
get_include_dirs = Absent("get_include_dirs")
get_library_dir = Absent("get_library_dir")
extra_include_paths = Absent("extra_include_paths")
extra_ldflags = Absent("extra_ldflags")


def show(config: object) -> None:
    """Print the graph of a configuration."""
    Visual(config).launch()


def set_fast_dlpack() -> None:
    """Nothing has to be set: tensors are handed on as they are, without a copy."""


lend_names()

__all__ = [
    "WITH_CUDA",
    "WITH_OPENVINO",
    "WITH_TENSORRT",
    "Backend",
    "BackendError",
    "ConfigError",
    "Dict",
    "Event",
    "InputError",
    "Interpreter",
    "NotHereError",
    "Pipe",
    "Queue",
    "Status",
    "ThreadSafeKVStorage",
    "Visual",
    "backends",
    "create",
    "default_page_table",
    "default_queue",
    "encrypt",
    "extra_include_paths",
    "extra_ldflags",
    "ffi",
    "get",
    "get_include_dirs",
    "get_library_dir",
    "get_sm",
    "infer_shape",
    "init",
    "init_from_file",
    "is_registered",
    "libinfo",
    "libipipe",
    "list_backends",
    "parse",
    "parse_group",
    "parse_toml",
    "pipe",
    "register",
    "register_backend",
    "register_filter",
    "serve",
    "set_fast_dlpack",
    "show",
    "supported_opset",
    "tool",
    "utils",
    *_keys,
]
