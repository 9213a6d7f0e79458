"""What `python -m pipeline.tunable` writes: the document that a service would run, to be tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tunable:
    """A pipeline's document, and what can be tuned of it.

    Attributes:
        document: the whole file as TOML's types, with what suits model, engine and cores.
        engine_node: the table with the engine.
        thread_nodes: tables whose instances are threads that decode and prepare images.
        instance_num: instances of the engine's node.
        most_rows: rows of the largest batch.
        shapes: what stands behind the rows in `max`, such as "x3x224x224"; of each input.
        batching_timeout_ms: longest wait of the engine's node for a batch.
        threads: instances of each of the thread nodes; 0 where there is none.
        on_gpu: whether the engine runs on a GPU.
    """

    document: dict[str, Any]
    engine_node: str
    thread_nodes: list[str]
    instance_num: int
    most_rows: int
    shapes: list[str]
    batching_timeout_ms: float
    threads: int
    on_gpu: bool
