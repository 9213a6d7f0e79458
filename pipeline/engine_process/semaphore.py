"""A POSIX semaphore in memory that processes share: wakes one thread of another process.

A message wakes the thread that reads the socket, which then has to wake the one that waits. See
sem_overview(7).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time

# At least as large as sem_t is on any 64-bit Linux.
SEMAPHORE_BYTES = 32
_SHARED_BY_PROCESSES = 1
# Waiting gives the interpreter's lock away; the other calls are over before it would be back.
_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_lock = ctypes.PyDLL(None, use_errno=True)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def available() -> bool:
    """Whether this host's C library can wait on the clock that deadlines are told on."""
    return hasattr(_libc, "sem_clockwait")


class Semaphore:
    """Counts posts. The memory stays mapped as long as the object is there.

    Args:
        memory: the mapped memory.
        offset: where in it the semaphore lies, in bytes.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._place = (ctypes.c_char * SEMAPHORE_BYTES).from_buffer(memory, offset)
        self._pointer = ctypes.byref(self._place)

    def initialise(self) -> None:
        """Set it to zero; one of the processes does that before any other uses it."""
        _check(_libc_with_lock.sem_init(self._pointer, _SHARED_BY_PROCESSES, 0))

    def post(self) -> None:
        """Wake a thread that waits, or spare the next one the waiting."""
        _check(_libc_with_lock.sem_post(self._pointer))

    def take(self) -> bool:
        """Whether there was a post; does not wait."""
        return not _libc_with_lock.sem_trywait(self._pointer)

    def wait(self, until_s: float | None) -> bool:
        """Wait for a post; False if none has come by then, a time on the monotonic clock."""
        if self.take():
            return True
        end = None
        if until_s is not None:
            end = _TimeSpec(int(until_s), int(until_s % 1 * 1e9))
        while True:
            if end is None:
                failed = _libc.sem_wait(self._pointer)
            else:
                clock = time.CLOCK_MONOTONIC
                failed = _libc.sem_clockwait(self._pointer, clock, ctypes.byref(end))
            if not failed:
                return True
            cause = ctypes.get_errno()
            if cause == errno.ETIMEDOUT:
                return False
            if cause != errno.EINTR:
                raise OSError(cause, os.strerror(cause))


def _check(failed: int) -> None:
    if failed:
        cause = ctypes.get_errno()
        raise OSError(cause, os.strerror(cause))
