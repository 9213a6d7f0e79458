"""A service in a process of its own, and a client for it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thriftpy2.rpc import make_client
from thriftpy2.transport import TCyBufferedTransportFactory, TCyFramedTransportFactory

from idl import inference

TIMEOUT_S = 120
TRANSPORTS = {"framed": TCyFramedTransportFactory, "unframed": TCyBufferedTransportFactory}


@contextmanager
def service(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server on a free port: the port, and the process. It must end by itself on SIGTERM."""
    command = [sys.executable, "-m", "service", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        log = []
        for line in process.stderr:
            log.append(line)
            if "ready: " in line:
                break
        match = re.search(r"ready: .* on 127\.0\.0\.1:(\d+)", log[-1] if log else "")
        assert match, "".join(log)
        yield int(match.group(1)), process
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, rest
    finally:
        process.kill()
        process.wait()


def connect(port: int, transport: str = "framed") -> Any:
    return make_client(
        inference.InferenceService,
        "127.0.0.1",
        port,
        trans_factory=TRANSPORTS[transport](),
        timeout=TIMEOUT_S * 1000,
    )
