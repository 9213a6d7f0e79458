"""The table of engines: their modules and packages, precisions and devices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Provider:
    """One line of the table: it says what importing the provider's module would.

    Attributes:
        name: as `--engine` spells it. Of two with one name, the one for GPUs runs where one is.
        target: its subclass of `Engine`, as "module:class".
        package: the package that it imports.
        install: what pip installs that package with.
        precisions: those that it runs.
        device: "cpu" or "cuda".
    """

    name: str
    target: str
    package: str
    install: str
    precisions: tuple[str, ...]
    device: str = "cpu"


PROVIDERS = (
    Provider(
        "onnxruntime",
        "engine.providers.onnxruntime:OnnxRuntimeEngine",
        package="onnxruntime",
        install="thriftpipe[server]",
        precisions=("fp32", "int8"),
    ),
    Provider(
        "openvino",
        "engine.providers.openvino:OpenVinoEngine",
        package="openvino",
        install="thriftpipe[openvino]",
        precisions=("fp32", "bf16", "int8"),
    ),
    Provider(
        "torch",
        "engine.providers.torch:TorchEngine",
        package="torch",
        install="thriftpipe[server]",
        precisions=("fp32", "bf16"),
    ),
    Provider(
        "tensorrt",
        "engine.providers.tensorrt.engine:TensorRtEngine",
        package="tensorrt",
        install="thriftpipe[tensorrt]",
        precisions=("fp32", "fp16", "int8"),
        device="cuda",
    ),
    Provider(
        "torch",
        "engine.providers.torch_cuda:TorchCudaEngine",
        package="torch",
        install="thriftpipe[server]",
        precisions=("fp32", "fp16", "bf16"),
        device="cuda",
    ),
)

PRECISIONS = tuple(dict.fromkeys(it for provider in PROVIDERS for it in provider.precisions))
"""All that some engine runs."""


def runs_on_gpu(name: str) -> bool:
    """Whether the engine of that name, which may be an unknown one, may run on a GPU."""
    devices = [provider.device for provider in PROVIDERS if provider.name == name]
    return "cuda" in devices or not devices
