"""The engine process: `python -m pipeline.engine_server LISTENER_FD OWNER_FD`."""

from __future__ import annotations

import sys

from interfaces.garbage import none_while_importing

if __name__ == "__main__":
    with none_while_importing():
        from pipeline.engine_server.serving import main
        from service.processes.process import leave
    leave(main(sys.argv[1:]))
