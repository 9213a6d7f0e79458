"""How many processes serve where `--workers` is auto: the rule, as a function of plain numbers.

One interpreter keeps a few cores busy and no more, whatever its threads do, and each process costs
memory. The numbers are those that served best where several were measured (results/): 16 cores and
a CPU engine, 4 processes; one H200 and 16 cores, 5 where the CPU decodes and 8 where the GPU does.
For other hosts they are scaled by the cores and the GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from interfaces.sizes import size_text
from service.handlers.process_load import ProcessLoad
from service.options.server_settings import MOST_WORKERS, ServerSettings
from service.processes.placement import Placement

CORES_EACH = 4
"""Cores that one process keeps busy with a CPU engine."""
CORES_EACH_WITH_GPU = 3
"""Cores that one process keeps busy where the engine runs on a GPU, in a process of its own."""
CORES_EACH_WITH_GPU_DECODING = 2
"""Cores that one process keeps busy where the engine's GPU decodes, too."""
MOST_PER_GPU = 8
"""Processes that keep busy a GPU that decodes: 10 serve 3 % more with 128 clients, for 1.4 GiB."""
_FEWEST_CORES = 6

WORKER_BYTES = 640 * 1024**2
"""Memory of a process without its model: interpreter, libraries, buffers of its instances."""
# Of a model on a CPU: its weights as the engine keeps and rearranges them, and its activations.
_TIMES_MODEL = 4
# Of CUDA's libraries and an engine in the process that has it, for each GPU.
_CUDA_BYTES = 2 * 1024**3
# Resident memory that messages take at most, as a multiple of --max-buffered-bytes.
_TIMES_BUFFERED = 1.25


@dataclass(frozen=True)
class WorkerCount:
    """How many processes serve, and why.

    Attributes:
        workers: how many; at 1 there is no supervisor.
        reason: what decided, in words.
    """

    workers: int
    reason: str

    def __str__(self) -> str:
        return f"{self.workers} ({self.reason})"


def is_always_one(cores: int) -> bool:
    """Whether so few cores have one process, whatever it does."""
    return cores < _FEWEST_CORES


def fitting_workers(
    load: ProcessLoad, cores: int, free_bytes: float, whole: ServerSettings
) -> WorkerCount:
    """How many processes suit a host that is none for `is_always_one`.

    Each gets its share of the cores, so that the instances and threads of all fit them; those that
    the user's settings ask for, each process has. GPUs are shared out evenly. All processes
    together stay within the memory that is free, even at the server's limits.

    Args:
        load: what each process does.
        cores: cores that the server may use.
        free_bytes: memory that it may use; infinite for any.
        whole: the whole server's settings, for its limits.
    """
    each = CORES_EACH_WITH_GPU if load.gpus else CORES_EACH
    if load.decodes_on_gpu:
        each = CORES_EACH_WITH_GPU_DECODING
    limits = [(max(1, cores // each), f"one for each {each} cores")]
    if load.gpus and not load.shares_engine:
        limits.append((load.gpus, "one for each GPU, as each has an engine of its own there"))
    elif load.decodes_on_gpu:
        limits.append((MOST_PER_GPU * load.gpus, f"{MOST_PER_GPU} keep a GPU busy that decodes"))
    if load.instances:
        told = f"one for each {load.instances} cores, as instance_num asks"
        limits.append((max(1, cores // load.instances), told))
    limits.append((MOST_WORKERS, "more are not allowed"))
    most, why = min(limits, key=lambda limit: limit[0])
    workers = most
    while workers > 1 and memory_bytes(load, workers, whole) > free_bytes:
        workers -= 1
    if workers < most:
        why = f"memory holds no more than {workers}, and the cores suit {most}"
    even = workers
    while load.gpus and even % load.gpus and load.gpus % even:
        even -= 1
    if even < workers:
        why += f"; {even} share {load.gpus} GPUs evenly"
    needed = memory_bytes(load, even, whole)
    return WorkerCount(
        even,
        f"auto: {cores} cores, {_where(load)}: {why}; "
        f"{size_text(needed)} at most of {size_text(free_bytes)} free",
    )


def memory_bytes(load: ProcessLoad, workers: int, whole: ServerSettings) -> float:
    """What so many processes take together at the server's limits, as far as that can be known.

    Args:
        load: what each process does.
        workers: how many there are.
        whole: the whole server's settings.
    """
    own = Placement(0, workers).server_settings(whole)
    each = WORKER_BYTES + own.max_decoded_bytes + _TIMES_BUFFERED * own.max_buffered_bytes
    engine = _TIMES_MODEL * load.model_bytes
    if load.gpus:
        engine = load.gpus * _CUDA_BYTES
    return workers * each + engine * (1 if load.shares_engine else workers)


def _where(load: ProcessLoad) -> str:
    if not load.gpus:
        return "decoding and engine on the CPU"
    gpus = f"{load.gpus} GPU{'s' if load.gpus > 1 else ''}"
    return f"decoding and engine on {gpus}" if load.decodes_on_gpu else f"engine on {gpus}"
