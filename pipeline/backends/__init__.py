"""The backends that come with the pipeline; importing this package registers them."""

from pipeline.backends import (
    containers,
    gpu,
    gpu_decoding,
    identity,
    inference,
    map_reduce,
    opencv,
    padding,
    pillow,
)

__all__ = [
    "containers",
    "gpu",
    "gpu_decoding",
    "identity",
    "inference",
    "map_reduce",
    "opencv",
    "padding",
    "pillow",
]
