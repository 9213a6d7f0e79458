"""What each process of a server with this handler has to do and to hold."""

from __future__ import annotations

from dataclasses import dataclass

MISTAKE_EXIT_CODE = 2
"""Of a program that tells a load, where the settings cannot work."""


@dataclass(frozen=True)
class ProcessLoad:
    """What a handler's settings ask of a process; found out without loading a model.

    Attributes:
        gpus: how many GPUs the handler uses; 0 where all runs on the CPU.
        decodes_on_gpu: whether a process that leaves the work on GPUs to others does none itself.
        shares_engine: whether several processes leave their nodes on GPUs to one engine process.
        instances: the most instances that the user's own settings ask for in each process; 0 where
            their number follows the cores.
        model_bytes: size of the model that each process loads.
    """

    gpus: int = 0
    decodes_on_gpu: bool = False
    shares_engine: bool = False
    instances: int = 0
    model_bytes: int = 0
