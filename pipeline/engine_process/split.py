"""Which nodes run in the engine process."""

from __future__ import annotations

from dataclasses import replace

from pipeline.backends.assembly import runs_on_gpu
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.config import NodeConfig, PipelineConfig


def entry_of_engine_process(config: PipelineConfig, engine: str) -> str | None:
    """The first of the nodes that several workers leave to one process; None if there are none.

    These are the nodes on GPUs (`shared_engine = "auto"`), or those from the engine's node on
    (`"always"`), in a graph that is a chain without jumps. What they give must be the result: a
    node that runs in the workers cannot follow.

    Raises:
        EngineError: there is no such engine.
    """
    if not config.graph.is_chain or any(node.jumps for node in config.nodes.values()):
        return None
    shared = [name for name, node in config.nodes.items() if _is_shared(node, engine)]
    followed_by = {following for name in shared for following in config.nodes[name].place.next}
    entries = [name for name in shared if name not in followed_by]
    if len(entries) != 1 or not followed_by <= set(shared):
        return None
    return entries[0]


def front_part(config: PipelineConfig, entry: str) -> PipelineConfig:
    """The nodes of a worker: all that lead to `entry`, which is the last of them."""
    behind = back_part(config, entry).nodes.keys() - {entry}
    nodes = {name: node for name, node in config.nodes.items() if name not in behind}
    nodes[entry] = replace(nodes[entry], place=replace(nodes[entry].place, next=()))
    return replace(config, nodes=nodes)


def back_part(config: PipelineConfig, entry: str) -> PipelineConfig:
    """The nodes of the engine process: `entry` and what follows it."""
    names = config.graph.from_entry(entry)
    nodes = {name: node for name, node in config.nodes.items() if name in names}
    return replace(config, nodes=nodes)


def _is_shared(node: NodeConfig, engine: str) -> bool:
    if node.shared_engine == "never":
        return False
    has_engine = ENGINE_BACKEND in node.backend.names()
    return (node.shared_engine == "always" and has_engine) or runs_on_gpu(
        node.backend, node.settings, engine
    )
