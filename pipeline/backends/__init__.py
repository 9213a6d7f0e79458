"""The backends that come with the pipeline; importing this package registers them."""

from pipeline.backends import (
    containers,
    gpu,
    gpu_decoding,
    identity,
    inference,
    item_keys,
    map_reduce,
    opencv,
    padding,
    perspective,
    pillow,
    saving,
    stand_ins,
    tensor_resizing,
    tensor_shapes,
    tensor_values,
)

__all__ = [
    "containers",
    "gpu",
    "gpu_decoding",
    "identity",
    "inference",
    "item_keys",
    "map_reduce",
    "opencv",
    "padding",
    "perspective",
    "pillow",
    "saving",
    "stand_ins",
    "tensor_resizing",
    "tensor_shapes",
    "tensor_values",
]
