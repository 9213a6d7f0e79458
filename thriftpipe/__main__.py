"""`thriftpipe COMMAND` and `python -m thriftpipe COMMAND`."""

from __future__ import annotations

import sys

from interfaces.extras import packages_of

# Libraries with threads that may crash a process which ends well.
_NATIVE = {"torch", "onnxruntime", "openvino"}
# As `interfaces.command_line` has it, while modules are still being imported.
_INTERRUPTED = 130


def main() -> int:
    """Run this process's command line.

    Returns:
        The exit code: 2 for a wrong command line, else the command's own.
    """
    try:
        with packages_of("cli"):
            from thriftpipe.door.group import run
    except KeyboardInterrupt:
        return _INTERRUPTED
    code = run(sys.argv[1:])
    if sys.modules.keys() & _NATIVE:
        from service.processes.process import leave

        # A pager may take its time.
        leave(code, patience_s=None)
    return code


if __name__ == "__main__":
    sys.exit(main())
