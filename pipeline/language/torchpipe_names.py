"""torchpipe's backends and keys that are not here, each with what to use instead."""

from __future__ import annotations

from collections.abc import Iterable

from engine.names import unknown_name

_IN_PYTHON = "write it in Python: pipeline.register_backend"
_TENSOR = f"it works on tensors only; {_IN_PYTHON}"
_BUILT_IN = "TensorrtTensor builds, loads and runs the engine by itself"
_SCHEDULER = "every node schedules itself: give it instance_num, max and batching_timeout"

UNSUPPORTED_BACKENDS = {
    "Aspect": "put what goes around a backend into a node of its own, or " + _IN_PYTHON,
    "BaselineSchedule": _SCHEDULER,
    "Batching": _SCHEDULER,
    "BroadcastC": _TENSOR,
    "FakeInstance": "give the node instance_num instead",
    "FixTensor": "the engine's node checks shapes by itself",
    "HasKey": "use a filter: pipeline.register_filter",
    "InstancesRegister": _SCHEDULER,
    "InstanceDispatcher": _SCHEDULER,
    "IoC": _SCHEDULER,
    "List": "use several nodes",
    "LoadTensorrtEngine": _BUILT_IN,
    "LogGPUTime": "use profile_stages = true",
    "ModelLoadder": _BUILT_IN,
    "MultiModalEmbedsTensor": _TENSOR,
    "Onnx2Tensorrt": _BUILT_IN,
    "PPLResizeTensor": "use ResizeTensor",
    "Restart": "a failed batch is retried item by item, without being asked for",
    "RoundRobin": _SCHEDULER,
    "SharedSequential": "use Sequential",
    "StreamPool": "every instance has a stream of its own",
    "TensorrtInferTensor": _BUILT_IN,
    "ThreadPoolExecutor": _SCHEDULER,
    "TorchStreamPool": "every instance has a stream of its own",
    "With": "put what goes around a backend into a node of its own, or " + _IN_PYTHON,
}
UNSUPPORTED_KEYS = {
    "batch_process": "use a node of its own behind this one",
    "borrow_from": "instances share their model's weights by themselves",
    "forward_modes": "a batch of one item or more is all one",
    "instances_grp": "use several min and max with ';', one an instance",
    "max_split": "items of a call are split up by themselves: give max",
    "model_type": "model is an ONNX file",
    "priority": "streams have one priority here",
    "instance_idx": "instances number themselves",
    "sm_util": "the GPU shares itself out",
    "weight_budget": "weights stay on the GPU",
    "weight_budget_percentage": "weights stay on the GPU",
}


def unknown_backend(name: str, known: Iterable[str]) -> str:
    """The message for a backend that is not here."""
    return _message(name, "backend", UNSUPPORTED_BACKENDS.get(name), known)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not here."""
    backend, _, last = key.rpartition("::")
    advice = UNSUPPORTED_KEYS.get(key)
    if last in {"backend", "dependency"}:
        advice = f'write it as one expression: backend = "{backend}[...]"'
    return _message(key, "key", advice, known)


def _message(name: str, kind: str, advice: str | None, known: Iterable[str]) -> str:
    if advice is None:
        return unknown_name(kind, name, known)
    return f"torchpipe's {kind} {name!r} is not supported here: {advice}"
