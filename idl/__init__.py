"""The wire contract: the classes of `inference.thrift`, as thriftpy2 would make them of it."""

from types import ModuleType

from idl import generated

inference: ModuleType = generated

__all__ = ["inference"]
