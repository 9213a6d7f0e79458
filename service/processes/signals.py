"""What signals do to the processes of a server.

| signal | server | its workers and engine process |
|---|---|---|
| SIGTERM, SIGINT, SIGQUIT | drains; the second one ends it at once | nothing |
| SIGHUP with --log-file | reopens that file, if it was moved away | the same |
| SIGHUP without it | drains, unless it was ignored at the start (`nohup`) | nothing |
| SIGUSR1 | logs the stacks of all threads, and the numbers that `stats` gives | the stacks |
| SIGUSR2 | one log line | the same |

A terminal or a service manager sends signals to all processes of a server: the supervisor says when
to stop. Python runs its handlers in the main thread between two bytecodes, for which a native call
may have no time for minutes; so a thread of its own reads which signals come, too. Where native
code keeps the interpreter's lock, that thread does not run either; then the kernel itself ends the
process on a signal that comes for the second time.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType

from service.logs.formats import Event
from service.logs.start import reopen_log, used_log_settings
from service.processes.lifecycle import Lifecycle
from service.processes.process import STDERR_FD, end_at_will, end_within

_log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None)

STACKS_OF_THE_HUNG = signal.SIGRTMIN
"""Writes all stacks although native code has the interpreter's lock.

The frames of threads that run are read meanwhile, which can crash the process: it is for one that
is killed next.
"""

# A terminal that closes may send SIGHUP twice, so that only the others are counted.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_STOPPING = (*_ENDING, signal.SIGHUP)
_HELD_BACK = (*_STOPPING, signal.SIGUSR1, signal.SIGUSR2)
# For a start that is interrupted to clean up after itself.
_START_ENDS_S = 2.0
# Beyond the time by which a server should have ended.
_OVERDUE_S = 5.0


@contextmanager
def stopped_by_signals(server: Lifecycle, *, is_native: bool) -> Iterator[None]:
    """Stop `server` on the first signal that says so, and the process at once on the second.

    The first one drains a server that serves, and the process ends within `stop_limit_s`, whatever
    hangs. A server that is still starting up has nothing to drain: SystemExit is raised in the main
    thread with the usual exit code, 128 + the signal's number; if native code keeps that thread,
    the process ends with this code a moment later. To be entered in the main thread.

    Args:
        server: what runs in this process.
        is_native: whether native code runs in it that may keep the interpreter's lock.
    """
    stop = _StopBySignals(server, is_native=is_native)
    with _read_by_thread(stop.note):
        previous = {number: signal.signal(number, stop.on_signal) for number in _stopping()}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _do_nothing)
        previous[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
        _settle_the_others()
        if is_native:
            for number in _ENDING:
                _end_by_the_next(number)
        try:
            yield
        finally:
            stop.end()
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def ended_by_signals(end_wait: Callable[[], None]) -> Iterator[None]:
    """Raise SystemExit in the main thread on a signal that stops a server.

    For what a start does before there is a server. The exit code is the usual one.

    Args:
        end_wait: ends what the main thread waits for; called by another thread, since a signal that
            comes just before a wait does not end it.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    def note(number: int) -> None:
        if number in stopping:
            end_wait()

    stopping = _stopping()
    handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(stopping, end)
    handlers.update(dict.fromkeys(_noted(), _do_nothing))
    with _read_by_thread(note):
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, before in previous.items():
                signal.signal(number, before)


class _StopBySignals:
    """The signals that have come for a server, and what they do.

    Args:
        server: what runs in this process.
        is_native: whether native code runs in it that may keep the interpreter's lock.
    """

    def __init__(self, server: Lifecycle, *, is_native: bool) -> None:
        self._server = server
        self._is_native = is_native
        self._stopping = _stopping()
        self._came: list[int] = []
        self._is_stopping = threading.Event()
        self._is_over, self._is_abandoned = threading.Event(), threading.Event()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Run by Python in the main thread."""
        del frame
        # `note` may come later than the next signal: than what is logged here, and answered to it.
        self._expect_the_next(number)
        if self._is_stopping.is_set():
            return
        self._is_stopping.set()
        if not self._server.ready:
            raise SystemExit(128 + number)
        # If the start has ended since `note` looked.
        self._is_over.set()
        self._limit_stop()
        self._server.stop(signal.Signals(number).name)

    def note(self, number: int) -> None:
        """Run by the thread that reads which signals come."""
        if number == signal.SIGUSR1:
            # It waits for the serving thread, and other signals must not.
            threading.Thread(target=_log_stats, args=(self._server,), daemon=True).start()
        if number in self._stopping:
            self._expect_the_next(number)
            self._came.append(number)
            if number in _ENDING and sum(one in _ENDING for one in self._came) > 1:
                self._end_now(number)
            if len(self._came) == 1 and self._server.ready:
                self._limit_stop()
            elif len(self._came) == 1:
                threading.Thread(target=self._end_start, args=(number,), daemon=True).start()
        self._server.wake()

    def _expect_the_next(self, number: int) -> None:
        if self._is_native and number in _ENDING:
            _end_by_the_next(number)

    def end(self) -> None:
        """The server has ended; does not return where `_end_now` ends the process."""
        self._is_over.set()
        end_at_will()
        if self._is_abandoned.is_set():
            # The exit code is to be that of `_end_now`.
            threading.Event().wait()

    def _limit_stop(self) -> None:
        end_within(self._server.stop_limit_s + _OVERDUE_S)

    def _end_start(self, number: int) -> None:
        if not self._is_over.wait(_START_ENDS_S):
            self._end_now(number)

    def _end_now(self, number: int) -> None:
        self._is_abandoned.set()
        try:
            self._server.abandon()
        finally:
            os._exit(128 + number)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait that a process handles once it can.

    A process that is started meanwhile begins with them waiting; `leave_stop_to_supervisor` ends
    that.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def leave_stop_to_supervisor() -> None:
    """Do nothing on the signals that stop a server, from now on.

    They are handled and not ignored, so that programs that this process starts have them as usual.
    """
    # Until this process ends.
    _keep_reading(_do_nothing).detach()
    for number in _stopping():
        signal.signal(number, _do_nothing)
    _settle_the_others()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)


def _stopping() -> list[signal.Signals]:
    """The signals that stop a server; without SIGHUP where that has another use.

    It was started to outlive that one, or has a file for its log.
    """
    hangup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [*_ENDING, *([] if hangup_ignored or _reopens_log() else [signal.SIGHUP])]


def _noted() -> list[signal.Signals]:
    """The signals of a user that end nothing, and do something here."""
    reopening = [signal.SIGHUP] if _reopens_log() else []
    return [signal.SIGUSR1, signal.SIGUSR2, *reopening]


def _reopens_log() -> bool:
    return used_log_settings().log_file is not None


def _settle_the_others() -> None:
    """Let signals of a user end nothing and that of `end_within` do so, whatever was inherited."""
    for number in _noted():
        signal.signal(number, _do_nothing)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    faulthandler.register(STACKS_OF_THE_HUNG, file=STDERR_FD, all_threads=True)


def _end_by_the_next(number: int) -> None:
    """Have Python handle one more signal of this number (glibc only).

    Unless this is called again after that one, the kernel ends the process on the next.
    """
    if hasattr(_libc, "sysv_signal"):
        # Python's handler in C is the same for all signals; struct sigaction begins with it.
        action = (ctypes.c_void_p * 32)()
        _libc.sigaction(signal.SIGUSR1, None, action)
        # A handler that is set by this call holds for one signal.
        _libc.sysv_signal(number, ctypes.c_void_p(action[0]))


def _do_nothing(number: int, frame: FrameType | None = None) -> None:
    del number, frame


@contextmanager
def _read_by_thread(note: Callable[[int], None]) -> Iterator[None]:
    """Have `note` called for each signal that has a handler, in a thread of its own."""
    previous_fd = signal.set_wakeup_fd(-1)
    writer = _keep_reading(note)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        # The thread's end.
        writer.close()


def _keep_reading(note: Callable[[int], None]) -> socket.socket:
    """Start that thread; it ends when the returned socket is closed."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def read() -> None:
        with reader:
            while numbers := reader.recv(64):
                for number in numbers:
                    if number == signal.SIGUSR1:
                        _log_stacks()
                    if number == signal.SIGHUP and _reopens_log():
                        reopen_log()
                    if number == signal.SIGUSR2:
                        _log.info("SIGUSR2 does nothing; SIGUSR1 logs all stacks, and the stats")
                    note(number)

    threading.Thread(target=read, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    return writer


def _log_stacks() -> None:
    """Log the stacks of all threads, whatever the log's level.

    They are taken by a thread that has the interpreter's lock, so that none runs meanwhile; so they
    must not go to stderr at once, whose reader may have stopped reading.
    """
    with os.fdopen(os.memfd_create("stacks"), "w+") as taken:
        faulthandler.dump_traceback(taken, all_threads=True)
        taken.seek(0)
        told = "the stacks of all threads (SIGUSR1):\n" + taken.read().rstrip()
    _log.handle(_log.makeRecord(_log.name, logging.INFO, __file__, 0, told, (), None))


def _log_stats(server: Lifecycle) -> None:
    """Log what the server has done, whatever the log's level."""
    try:
        told: object = Event("stats (SIGUSR1)", asdict(server.stats()))
    except TimeoutError as error:
        told = f"no stats (SIGUSR1): {error}"
    _log.handle(_log.makeRecord(_log.name, logging.INFO, __file__, 0, told, (), None))
