"""Finds out how many processes are to serve, where `--workers` leaves that open."""

from __future__ import annotations

import logging
import subprocess
import sys

from engine.cpu.cores import available_cores
from interfaces.messages import from_json, to_json
from service.accepting.listener import PortListener
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE, ProcessLoad
from service.handlers.table import ALONE, LOAD_MODULES
from service.options.server_settings import ServerSettings
from service.processes.free_memory import free_memory_bytes
from service.processes.signals import ended_by_signals
from service.processes.worker_count import WorkerCount, fitting_workers, is_always_one

_log = logging.getLogger(__name__)

# A library that looks for GPUs may hang with their driver.
_LONGEST_S = 60.0


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
    except _UnknownLoadError as error:
        if not error.is_told_by_start:
            _log.warning("one process serves, since what several would take is unknown: %s", error)
        return WorkerCount(1, f"auto: what each process takes is unknown: {error}")
    return fitting_workers(load, cores, free_memory_bytes(), whole)


class _UnknownLoadError(Exception):
    """What each process takes could not be found out; the message is one line.

    Attributes:
        is_told_by_start: whether a setting cannot work, which the start itself will say.
    """

    def __init__(self, reason: str, *, is_told_by_start: bool = False) -> None:
        super().__init__(reason)
        self.is_told_by_start = is_told_by_start


def _process_load(module: str, for_handler: HandlerSettings) -> ProcessLoad:
    """What the module says, which runs in a process of its own: a supervisor loads no engine."""
    children: list[subprocess.Popen[str]] = []

    def end_wait() -> None:
        for child in children:
            child.kill()

    with (
        ended_by_signals(end_wait),
        subprocess.Popen(  # noqa: S603 (this project's own module)
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        children.append(child)
        try:
            answer, told = child.communicate(to_json(for_handler), _LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise _UnknownLoadError(f"not told within {_LONGEST_S:g} s") from error
        finally:
            child.kill()
    if child.returncode != 0:
        lines = told.strip().splitlines() or [f"exit code {child.returncode}"]
        is_mistake = child.returncode == MISTAKE_EXIT_CODE
        raise _UnknownLoadError(lines[-1], is_told_by_start=is_mistake)
    try:
        load: ProcessLoad = from_json(answer.splitlines()[-1], [ProcessLoad])
    except (IndexError, ValueError) as error:
        raise _UnknownLoadError(f"{module} gave no answer") from error
    return load
