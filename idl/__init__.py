"""The wire contract, loaded once from `inference.thrift` wherever the package is installed."""

from importlib.resources import as_file, files
from types import ModuleType

import thriftpy2


def _load() -> ModuleType:
    with as_file(files(__name__) / "inference.thrift") as path:
        # thriftpy2 keeps one module per name, so that structs stay identical (and picklable)
        # however often this runs.
        module: ModuleType = thriftpy2.load(str(path), module_name="inference_thrift")
    return module


inference = _load()

__all__ = ["inference"]
