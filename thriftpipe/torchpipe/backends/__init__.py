"""torchpipe main's `torchpipe.backends`."""

from thriftpipe.torchpipe.absent import Absent
from thriftpipe.torchpipe.backends.base import (
    BackendBase,
    BackendMeta,
    BackendProtocol,
    backend,
    get_backend,
    get_backend_meta,
    list_backends,
    register_backend,
)

PySyncTensor = Absent("backends.PySyncTensor")
PyTensorrtInferTensor = Absent("backends.PyTensorrtInferTensor")
PyTensorrtEngine = Absent("backends.PyTensorrtEngine")

__all__ = [
    "BackendBase",
    "BackendMeta",
    "BackendProtocol",
    "PySyncTensor",
    "PyTensorrtEngine",
    "PyTensorrtInferTensor",
    "backend",
    "get_backend",
    "get_backend_meta",
    "list_backends",
    "register_backend",
]
