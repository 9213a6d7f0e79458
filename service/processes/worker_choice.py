"""Finds out how many processes are to serve, where `--workers` leaves that open."""

from __future__ import annotations

import logging

from engine.cpu.cores import available_cores
from interfaces.messages import from_json
from service.accepting.listener import PortListener
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import ProcessLoad
from service.handlers.table import ALONE, LOAD_MODULES
from service.options.server_settings import ServerSettings
from service.processes.free_memory import free_memory_bytes
from service.processes.handler_program import NoAnswerError, answer_of
from service.processes.worker_count import WorkerCount, fitting_workers, is_always_one

_log = logging.getLogger(__name__)


def choose_worker_count(
    handler: str, for_handler: HandlerSettings, whole: ServerSettings
) -> WorkerCount:
    """How many processes are to serve: what `--workers` says, else what suits the host.

    To be called in the main thread: a signal that stops a server ends this by SystemExit.

    Args:
        handler: its name.
        for_handler: its settings.
        whole: the whole server's.

    Raises:
        OSError: the server's address cannot be had, which is told before the slow part.
    """
    cores = available_cores()
    if whole.workers is not None:
        return WorkerCount(whole.workers, "--workers")
    if (why := ALONE.get(handler)) is not None:
        return WorkerCount(1, f"auto: {why}")
    if for_handler.backends is not None:
        return WorkerCount(1, "auto: what the code of --backends takes in each process is unknown")
    if is_always_one(cores):
        return WorkerCount(1, f"auto: one keeps {cores} {'core' if cores == 1 else 'cores'} busy")
    listener = PortListener(whole)
    listener.open()
    listener.close()
    try:
        load = _process_load(LOAD_MODULES[handler], for_handler)
    except NoAnswerError as error:
        # A mistake is what the start itself will tell.
        if not error.is_mistake:
            _log.warning("one process serves, since what several would take is unknown: %s", error)
        return WorkerCount(1, f"auto: what each process takes is unknown: {error}")
    return fitting_workers(load, cores, free_memory_bytes(), whole)


def _process_load(module: str, for_handler: HandlerSettings) -> ProcessLoad:
    answer = answer_of(module, for_handler)
    try:
        load: ProcessLoad = from_json(answer.splitlines()[-1], [ProcessLoad])
    except (IndexError, ValueError) as error:
        raise NoAnswerError(f"{module} gave no answer") from error
    return load
