"""What the nodes of a configuration need and this machine may lack, and unlikely values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.cache.bounded_file import why_no_file, why_no_folder
from engine.contexts.cuda_device import cuda_available
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.names import unknown_name
from engine.normalization import Normalization
from engine.onnx_graph.activations import AUTO as OUTPUT_AUTO
from engine.onnx_graph.file import read_structure
from engine.registry import AUTO, choose_engine, fallback_precision
from engine.zoo import ZOO_NAMES
from engine.zoo.export import OUTPUT_NAME
from pipeline.backends.assembly import ConfiguredBackend, fitting_instance_num
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.engine_settings import engine_options
from pipeline.backends.gpu import GpuOperator
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.backends.interface import InstanceConfig, SharedResources
from pipeline.backends.postprocessing import check_activation
from pipeline.config import NodeConfig
from pipeline.errors import PipelineConfigError
from pipeline.pixel_warnings import pixel_warnings

_SHORTEST_TIMEOUT_MS = 0.1
_LONGEST_TIMEOUT_MS = 1000
_MIB_BYTES = 2**20


@dataclass
class Findings:
    """What was found.

    Attributes:
        mistakes: why it cannot be loaded, wherever it runs.
        warnings: what may not be meant, or cannot be had on this host.
    """

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def node_findings(nodes: Iterable[NodeConfig]) -> Findings:
    """Look at every node; no model is loaded, but the beginnings of graphs are looked at."""
    nodes = tuple(nodes)
    findings = Findings(warnings=list(pixel_warnings(nodes)))
    for node in nodes:
        where = f"[{node.name}]"
        findings.warnings += [f"{where} {text}" for text in _scheduling_warnings(node)]
        for backend in node.backends():
            if backend.name == ENGINE_BACKEND:
                findings.mistakes += [f"{where} {text}" for text in _engine_mistakes(node, backend)]
                findings.warnings += [f"{where} {text}" for text in _engine_warnings(backend)]
            elif issubclass(backend.cls, GpuOperator):
                if not cuda_available():
                    findings.warnings.append(
                        f"{where} {backend.name} needs an NVIDIA GPU and a CUDA build of torch, "
                        f"and this host lacks them: here use {backend.cls.cpu_counterpart}"
                    )
            elif issubclass(backend.cls, CpuOperator):
                refusal = _refusal(lambda b=backend, n=node: b.cls().init(_instance(n, b)))  # type: ignore[misc]
                findings.mistakes += [f"{where} {refusal}"] if refusal else []
    return findings


def _scheduling_warnings(node: NodeConfig) -> Iterator[str]:
    timeout_ms = node.batching_timeout_ms
    if 0 < timeout_ms < _SHORTEST_TIMEOUT_MS:
        yield (
            f"batching_timeout = {timeout_ms:g} is in milliseconds; if seconds were meant, write "
            f"{timeout_ms * 1000:g}"
        )
    if timeout_ms > _LONGEST_TIMEOUT_MS:
        yield (
            f"batching_timeout = {timeout_ms:g} is in milliseconds: an item may wait "
            f"{timeout_ms / 1000:g} s for `min` others"
        )
    try:
        fitting = fitting_instance_num(node.backend, node.instance_num, node.settings, AUTO)
    except EngineError:
        return  # which the engine's own warning tells
    if fitting < node.instance_num:
        yield (
            f"instance_num = {node.instance_num} becomes {fitting} on this host, which has "
            f"{available_cores()} cores: more would take turns on them"
        )


def _engine_mistakes(node: NodeConfig, backend: ConfiguredBackend) -> Iterator[str]:
    settings = backend.settings
    model = settings["model"]
    if model is None:
        names = ", ".join(ZOO_NAMES)
        yield f"model is missing: {ENGINE_BACKEND} needs an ONNX file, or one of {names}"
    elif model not in ZOO_NAMES and (reason := _why_no_model(model)):
        yield f"model = {model!r}: {reason}"
    elif reason := _why_no_output(model, settings["output"]):
        yield f"output = {settings['output']!r}: {reason}"
    if (refusal := _refusal(lambda: check_activation(settings))) is not None:
        yield refusal
    if (settings["mean"] is None) != (settings["std"] is None):
        missing = "mean" if settings["mean"] is None else "std"
        yield f"mean and std go together; {missing} is missing"
    elif settings["mean"] is not None:
        try:
            Normalization(settings["mean"], settings["std"])
        except EngineError as error:
            yield str(error)
    folder = settings["calibration_images"]
    if folder is not None and (reason := why_no_folder(Path(folder))):
        yield f"calibration_images = {folder!r}: {reason}"
    refusal = _refusal(lambda: engine_options(_instance(node, backend), "fp32"))
    if refusal is not None:
        yield refusal


def _why_no_model(model: str) -> str:
    """Why that names no file; "" where it does."""
    path = Path(model)
    if not path.suffix and path.name == model and not os.path.lexists(path):
        return f"{unknown_name('model', model, ZOO_NAMES)}, or a path to an ONNX file"
    return why_no_file(path)


def _why_no_output(model: str, output: str | None) -> str:
    """Why the model has no such output; "" where it has, or where that is unknown."""
    if output in (None, OUTPUT_AUTO):
        return ""
    if model in ZOO_NAMES:
        names = [OUTPUT_NAME]
    elif (proto := read_structure(model)) is not None:
        names = [value.name for value in proto.graph.output]
    else:
        return ""
    return "" if output in names else unknown_name(f"output of {model}", str(output), names)


def _engine_warnings(backend: ConfiguredBackend) -> Iterator[str]:
    if backend.settings["max_workspace_size"] >= _MIB_BYTES:
        size = backend.settings["max_workspace_size"]
        yield (
            f"max_workspace_size = {size} is in megabytes; if bytes were meant, write "
            f"{max(1, size // _MIB_BYTES)}"
        )
    wanted = backend.settings["precision"]
    if wanted is None:
        return
    try:
        choice = choose_engine(AUTO, wanted if wanted in ("bf16", "int8") else None)
        runs = fallback_precision(choice.name, wanted)
    except EngineError as error:
        yield f"precision = {wanted!r} cannot run on this host: {error}"
        return
    if runs != wanted:
        yield f"precision = {wanted!r}: the engine of this host, {choice.name}, runs {runs} instead"


def _instance(node: NodeConfig, backend: ConfiguredBackend) -> InstanceConfig:
    return InstanceConfig(
        node.name,
        backend.settings,
        node.instance_num,
        AUTO,
        SharedResources(),
    )


def _refusal(action: Callable[[], object]) -> str | None:
    try:
        action()
    except PipelineConfigError as error:
        return str(error)
    return None
