"""What C libraries write to stderr."""

from __future__ import annotations

import ctypes
import os
import stat

_STDERR_FD = 2
# Of setvbuf.
_UNBUFFERED = 2


def let_native_messages_pass() -> None:
    """Let no C library wait for the reader of stderr, where that is a pipe.

    What they write, as libjpeg does of each damaged image, goes there as it is, and is lost only
    where the pipe is full: so the last words before an abort are seen. What is replaced is C's
    `stderr`; the interpreter's own messages go to the descriptor as ever.
    """
    libc = ctypes.CDLL(None)
    # Elsewhere the stream is a constant.
    is_glibc = hasattr(libc, "gnu_get_libc_version")
    if not is_glibc or not stat.S_ISFIFO(os.fstat(_STDERR_FD).st_mode):
        return
    try:
        # Of the same pipe: other processes that share the descriptor expect it to block.
        fd = os.open(f"/proc/self/fd/{_STDERR_FD}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    libc.fdopen.restype = ctypes.c_void_p
    libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
    libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
    stream = libc.fdopen(fd, b"w")
    libc.setvbuf(stream, None, _UNBUFFERED, 0)
    ctypes.c_void_p.in_dll(libc, "stderr").value = stream
