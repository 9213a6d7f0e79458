"""A service in a process of its own, and a client for it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
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
    log: list[str] = []
    started = threading.Event()

    def read_log() -> None:
        # To its end: a server whose log nobody reads would wait for its reader.
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if "ready: " in line:
                started.set()
        started.set()

    reader = threading.Thread(target=read_log)
    reader.start()
    try:
        assert started.wait(TIMEOUT_S)
        match = re.search(r"ready: .* on 127\.0\.0\.1:(\d+)", "".join(log))
        assert match, "".join(log)
        yield int(match.group(1)), process
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0, "".join(log)
    finally:
        process.kill()
        process.wait()
        reader.join()


def connect(port: int, transport: str = "framed") -> Any:
    return make_client(
        inference.InferenceService,
        "127.0.0.1",
        port,
        trans_factory=TRANSPORTS[transport](),
        timeout=TIMEOUT_S * 1000,
    )
