"""What a well-formed configuration needs and this host may lack, and values that look wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.cpu import available_cores
from engine.cuda_device import cuda_available
from engine.interface import EngineError
from engine.names import closest_name_hint, unknown_name
from engine.registry import AUTO, choose_engine, stand_in_precision
from engine.zoo import ZOO_NAMES
from pipeline.assembly import fitting_instance_num
from pipeline.backend import InstanceConfig, SharedResources
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.engine_settings import engine_options
from pipeline.backends.gpu import GpuOperator
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.commands.members import Member, members
from pipeline.config import NodeConfig
from pipeline.errors import PipelineConfigError

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


def host_findings(nodes: Iterable[NodeConfig]) -> Findings:
    """Look at every node; no model is loaded."""
    findings = Findings()
    for node in nodes:
        where = f"[{node.name}]"
        findings.warnings += [f"{where} {text}" for text in _scheduling_warnings(node)]
        for member in members(node):
            if member.name == ENGINE_BACKEND:
                findings.mistakes += [f"{where} {text}" for text in _engine_mistakes(node, member)]
                findings.warnings += [f"{where} {text}" for text in _engine_warnings(member)]
            elif issubclass(member.cls, GpuOperator):
                if not cuda_available():
                    findings.warnings.append(
                        f"{where} {member.name} needs an NVIDIA GPU and a CUDA build of torch, "
                        f"and this host lacks them: here use {member.cls.cpu_counterpart}"
                    )
            elif issubclass(member.cls, CpuOperator):
                refusal = _refusal(lambda m=member, n=node: m.cls().init(_instance(n, m)))  # type: ignore[misc]
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


def _engine_mistakes(node: NodeConfig, member: Member) -> Iterator[str]:
    settings = member.settings
    model = settings["model"]
    if model is None:
        names = ", ".join(ZOO_NAMES)
        yield f"model is missing: {ENGINE_BACKEND} needs an ONNX file, or one of {names}"
    elif model not in ZOO_NAMES and not Path(model).is_file():
        yield f"model = {model!r}: {_missing_model(model)}"
    if (settings["mean"] is None) != (settings["std"] is None):
        missing = "mean" if settings["mean"] is None else "std"
        yield f"mean and std go together; {missing} is missing"
    folder = settings["calibration_images"]
    if folder is not None and not Path(folder).is_dir():
        yield f"calibration_images = {folder!r}: there is no such folder"
    refusal = _refusal(lambda: engine_options(_instance(node, member), "fp32"))
    if refusal is not None:
        yield refusal


def _missing_model(model: str) -> str:
    path = Path(model)
    if path.is_dir():
        return "that is a folder, an ONNX file is needed"
    if not path.suffix and path.name == model:
        return f"{unknown_name('model', model, ZOO_NAMES)}, or a path to an ONNX file"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    there = [entry.name for entry in path.parent.iterdir()]
    return f"there is no such file{closest_name_hint(path.name, there).removesuffix('.')}"


def _engine_warnings(member: Member) -> Iterator[str]:
    if member.settings["max_workspace_size"] >= _MIB_BYTES:
        size = member.settings["max_workspace_size"]
        yield (
            f"max_workspace_size = {size} is in megabytes; if bytes were meant, write "
            f"{max(1, size // _MIB_BYTES)}"
        )
    wanted = member.settings["precision"]
    if wanted is None:
        return
    try:
        choice = choose_engine(AUTO, wanted if wanted in ("bf16", "int8") else None)
        runs = stand_in_precision(choice.name, wanted)
    except EngineError as error:
        yield f"precision = {wanted!r} cannot run on this host: {error}"
        return
    if runs != wanted:
        yield f"precision = {wanted!r}: the engine of this host, {choice.name}, runs {runs} instead"


def _instance(node: NodeConfig, member: Member) -> InstanceConfig:
    return InstanceConfig(
        node.name,
        member.settings,
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
