"""What the nodes of a configuration need and this host may lack, and unlikely values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.contexts.cuda_device import check_device, cuda_available
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from pipeline.backends.assembly import fitting_instance_num, runs_on_gpu
from pipeline.backends.cpu_operator import CpuOperator
from pipeline.backends.gpu import GpuOperator, missing_gpu
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.backends.interface import InstanceConfig, SharedResources
from pipeline.commands.engine_checks import check_engine
from pipeline.config import NodeConfig
from pipeline.errors import MissingHereError
from pipeline.findings import Findings
from pipeline.pixel_warnings import pixel_warnings

_SHORTEST_TIMEOUT_MS = 0.1
_LONGEST_TIMEOUT_MS = 1000


def check_nodes(nodes: Iterable[NodeConfig], engine: str, findings: Findings) -> None:
    """Look at every node; no model is loaded, but the graphs of models are looked at.

    Args:
        nodes: of one configuration.
        engine: what would run their models: a provider's name or "auto".
        findings: where it goes.
    """
    nodes = tuple(nodes)
    findings.warnings += pixel_warnings(nodes)
    for node in nodes:
        where = f"[{node.name}]"
        findings.warnings += [f"{where} {text}" for text in _scheduling_warnings(node, engine)]
        for backend in node.backends():
            if backend.name == ENGINE_BACKEND:
                check_engine(node, backend, engine, findings)
            elif issubclass(backend.cls, GpuOperator):
                if not cuda_available():
                    findings.add(where, MissingHereError(missing_gpu(backend.cls)))
            elif issubclass(backend.cls, CpuOperator):
                instance = InstanceConfig(
                    node.name, backend.settings, node.instance_num, engine, SharedResources()
                )
                operator = backend.cls()
                findings.of(where, lambda o=operator, i=instance: o.init(i))  # type: ignore[misc]
        _check_devices(node, engine, findings)


def _check_devices(node: NodeConfig, engine: str, findings: Findings) -> None:
    where, numbers = f"[{node.name}]", node.device_ids
    if not cuda_available():
        if numbers != (0,):
            findings.warnings.append(
                f"{where} device_id = {','.join(map(str, numbers))}: this host has no NVIDIA GPU "
                f"that torch can use; what can run on the CPU runs there"
            )
        return
    try:
        on_gpu = runs_on_gpu(node.backend, node.settings, engine)
    except EngineError:
        return  # which the check of the engine tells
    for number in numbers if on_gpu else ():
        findings.of(where, lambda n=number: check_device(n))  # type: ignore[misc]


def _scheduling_warnings(node: NodeConfig, engine: str) -> Iterator[str]:
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
        fitting = fitting_instance_num(node.backend, node.instance_num, node.settings, engine)
    except EngineError:
        return  # which the check of the engine tells
    if fitting < node.instance_num:
        yield (
            f"instance_num = {node.instance_num} becomes {fitting} on this host, which has "
            f"{available_cores()} cores: more would take turns on them"
        )
