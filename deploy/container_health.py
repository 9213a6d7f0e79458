"""The health check of the container: `health` of the server, on the address that it was given.

Command line, environment and file say where it listens, so they are read as the server itself reads
them: from the container's first process, which is the server, perhaps behind an init. TLS is not
spoken: give a server with --tls-cert another check, such as /livez of its --metrics-port.
"""

from __future__ import annotations

import sys
from pathlib import Path

from service.client.client_command import main
from service.options.given import gather
from service.options.server_arguments import parse_arguments

_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_SERVER = ("-m", "service")


def health(pid: str) -> int:
    """The exit code of `python -m service.client health`.

    Args:
        pid: of the server, or of the process that has its command line.
    """
    process = Path("/proc", pid)
    words = _strings(process / "cmdline")
    at = next(i for i in range(len(words)) if tuple(words[i : i + 2]) == _SERVER)
    environment = dict(one.split("=", 1) for one in _strings(process / "environ") if "=" in one)
    options = parse_arguments(gather(words[at + 2 :], environment).words)
    host = _ANY_ADDRESS.get(options.host, options.host)
    return main(["health", "--host", host, "--port", str(options.port), "--timeout-s", "4"])


def _strings(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]


if __name__ == "__main__":
    sys.exit(health(*(sys.argv[1:] or ["1"])))
