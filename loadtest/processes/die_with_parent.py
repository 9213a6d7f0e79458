"""Replace this process by a command that the kernel kills when its parent dies.

Run as a script: `python die_with_parent.py PARENT_PID COMMAND...`. It runs between fork and the
real command because setting this up in `preexec_fn` is unsafe once the parent has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, make sure that the parent still lives, and become the command."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(
            f"cannot ask for a signal at the parent's death: {os.strerror(ctypes.get_errno())}"
        )
    if os.getppid() != parent_pid:
        sys.exit(1)  # the parent died before the request was in place
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        sys.exit(f"cannot start {command[0]!r}: {error.strerror}")


if __name__ == "__main__":
    main()
