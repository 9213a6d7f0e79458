"""Asks a handler's own programs about its settings, each in a process of its own.

They import what the handler does, which a supervisor or a front end must not: it would have its
memory and threads for nothing.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import nullcontext

from interfaces.messages import to_json
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE
from service.handlers.table import CHECK_MODULES
from service.processes.signals import ended_by_signals

_log = logging.getLogger(__name__)

# A library that looks for GPUs may hang with their driver.
_LONGEST_S = 60.0


class NoAnswerError(Exception):
    """The program has none; the message is one line.

    Attributes:
        is_mistake: whether a setting cannot work.
    """

    def __init__(self, reason: str, *, is_mistake: bool = False) -> None:
        super().__init__(reason)
        self.is_mistake = is_mistake


def answer_of(module: str, for_handler: HandlerSettings, *, ended_by_signal: bool = True) -> str:
    """What a program writes to stdout.

    Args:
        module: it reads HandlerSettings from stdin, and ends with MISTAKE_EXIT_CODE and a line on
            stderr where they cannot work.
        for_handler: these.
        ended_by_signal: whether a signal that stops a server ends this by SystemExit; then this is
            for the main thread.

    Raises:
        NoAnswerError: it gives none.
    """
    children: list[subprocess.Popen[str]] = []

    def end_wait() -> None:
        for child in children:
            child.kill()

    with (
        ended_by_signals(end_wait) if ended_by_signal else nullcontext(),
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
            raise NoAnswerError(f"not told within {_LONGEST_S:g} s") from error
        finally:
            child.kill()
    if child.returncode != 0:
        lines = told.strip().splitlines() or [f"exit code {child.returncode}"]
        raise NoAnswerError(lines[-1], is_mistake=child.returncode == MISTAKE_EXIT_CODE)
    return answer


def check_settings(
    handler: str, for_handler: HandlerSettings, *, ended_by_signal: bool = True
) -> None:
    """Find what cannot work on any host, before other hosts start with it. No model is loaded.

    Args:
        handler: its name.
        for_handler: its settings.
        ended_by_signal: as of `answer_of`.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    module = CHECK_MODULES.get(handler)
    if module is None:
        return
    try:
        answer_of(module, for_handler, ended_by_signal=ended_by_signal)
    except NoAnswerError as error:
        if error.is_mistake:
            raise ConfigurationError(str(error)) from error
        _log.warning("the settings are not checked before replicas start: %s", error)
