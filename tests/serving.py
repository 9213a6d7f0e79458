"""A service, in a process of its own or in this one, and a client for it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

from thriftpy2.rpc import make_client
from thriftpy2.transport import TCyBufferedTransportFactory, TCyFramedTransportFactory

from idl import inference
from service.accepting.listener import PortListener
from service.cli import main
from service.handlers.table import create_handler
from service.images.decode_memory import DECODE_MEMORY
from service.options.server_arguments import parse_arguments
from service.options.validation import handler_settings, server_settings
from service.server import Server

TIMEOUT_S = 120
TRANSPORTS = {"framed": TCyFramedTransportFactory, "unframed": TCyBufferedTransportFactory}
# Calls wait as long as they have to: on a busy machine a few clients are an overload.
OPTIONS = ("--port", "0", "--max-queue-ms", "0")


@contextmanager
def service(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server on a free port: the port, and the process. It must end by itself on SIGTERM."""
    command = [sys.executable, "-m", "service", *OPTIONS, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    started = threading.Event()

    def read_log() -> None:
        # To its end: a server whose log is not read would wait for its reader.
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


@contextmanager
def service_here(*arguments: str) -> Iterator[int]:
    """The same server in a thread of this process, which need not import torch again: the port."""
    options = parse_arguments([*OPTIONS, *arguments])
    settings = server_settings(options)
    arrivals = PortListener(settings)

    def load() -> Any:
        return create_handler(options.handler, handler_settings(options))

    with Server(settings, options.handler, load, arrivals) as server:
        try:
            server.startup()
        except BaseException:
            server.shutdown()
            raise

        def serve() -> None:
            server.serve()
            server.drain()
            server.shutdown()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield arrivals.address[1]
        finally:
            server.stop()
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


def refusal(*arguments: str) -> str:
    """The line with which `python -m service`, run in this process, refuses to start."""
    environment, limit_bytes = dict(os.environ), DECODE_MEMORY.limit_bytes
    with redirect_stderr(io.StringIO()) as written:
        try:
            exit_code = main(["--port", "0", *arguments])
        finally:
            # What a server sets for its own process and its children.
            os.environ.clear()
            os.environ.update(environment)
            DECODE_MEMORY.limit_bytes = limit_bytes
    assert exit_code == 2
    (line,) = written.getvalue().splitlines()
    assert line.startswith("error: ")
    return line


def connect(port: int, transport: str = "framed") -> Any:
    return make_client(
        inference.InferenceService,
        "127.0.0.1",
        port,
        trans_factory=TRANSPORTS[transport](),
        timeout=TIMEOUT_S * 1000,
    )
