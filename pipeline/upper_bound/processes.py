"""The upper bound in several processes, each with its share of the cores as workers have."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier

from engine.cpu.cores import CORES_VARIABLE
from engine.errors import EngineError
from pipeline.upper_bound.threads import Rate, measure_threads
from service.handlers.handler_settings import HandlerSettings
from service.processes.placement import share_of_cores

_CORES_OF_ONE = 4
_MOST_PROCESSES = 16


def process_counts(cores: int) -> list[int]:
    """Numbers of processes that are worth measuring: one for every four cores, and one a core."""
    counts = {min(_MOST_PROCESSES, count) for count in (cores // _CORES_OF_ONE, cores)}
    return sorted(count for count in counts if count > 1)


def measure_processes(
    settings: HandlerSettings,
    images: Sequence[bytes],
    batch_size: int,
    duration_s: float,
    processes: int,
    cores: int,
) -> Rate:
    """Images a second of `processes` processes that share `cores` cores and begin together.

    The other arguments are those of `measure_threads`.

    Raises:
        EngineError: one of them fails or dies; the others are stopped.
    """
    # No fork server: it would not be waited for, and the CPU time of what it had forked would not
    # count as that of this process's children.
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    share = share_of_cores(cores, processes)
    results: list[Connection] = []
    workers = []
    for _ in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        arguments = (settings, images, batch_size, duration_s, share, start, sender)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        sender.close()
        results.append(receiver)
        workers.append(worker)
    try:
        rates = _collect(results, start)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return Rate(sum(rate.images_per_s for rate in rates), rates[0].threads, False, processes)


def _collect(results: list[Connection], start: Barrier) -> list[Rate]:
    """What all processes measured; EngineError with what the first one that failed says."""
    rates: list[Rate] = []
    while results:
        finished = wait(results)
        for receiver in [receiver for receiver in results if receiver in finished]:
            try:
                outcome = receiver.recv()
            except EOFError:
                outcome = "a process of the in-process upper bound died"
            if not isinstance(outcome, Rate):
                start.abort()
                raise EngineError(outcome)
            rates.append(outcome)
            results.remove(receiver)
    return rates


def _work(
    settings: HandlerSettings,
    images: Sequence[bytes],
    batch_size: int,
    duration_s: float,
    cores: int,
    start: Barrier,
    results: Connection,
) -> None:
    """What one of the processes does."""

    def begin() -> None:
        start.wait()

    os.environ[CORES_VARIABLE] = str(cores)
    try:
        results.send(measure_threads(settings, images, batch_size, duration_s, start=begin))
    except Exception as error:  # noqa: BLE001 (raised again by the process that waits for it)
        results.send(str(error) or type(error).__name__)
