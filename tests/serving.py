"""A service, in a process of its own or in this one, and a client for it."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import psutil
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
# Calls wait as long as they have to: on a busy machine a few clients are an overload. One process
# serves, on a host of many cores, too, unless a test says otherwise.
OPTIONS = ("--port", "0", "--max-queue-ms", "0", "--workers", "1")


# For `python -c`: `python -m service` on what it takes for a host of eight cores and 16 GB.
ON_EIGHT_CORES = """
import os, runpy
import engine.cpu.cores
os.sched_getaffinity = lambda pid: set(range(8))
engine.cpu.cores.cgroup_quota_cores = lambda: None
import service.processes.worker_choice
service.processes.worker_choice.free_memory_bytes = lambda: 16e9
runpy.run_module("service", run_name="__main__", alter_sys=True)
"""


class ServerProcess:
    """A server process, and the lines of its log as they come.

    Args:
        arguments: behind the interpreter.
        cwd: where it runs, and from where it imports first; None for this process's folder.
        before: a command that becomes the interpreter, in another place.
    """

    def __init__(
        self, arguments: Sequence[str], cwd: Path | None = None, before: Sequence[str] = ()
    ) -> None:
        folders = [str(cwd or Path.cwd()), *sys.path]
        self.process = subprocess.Popen(
            [*before, sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log = ""

    def read_until(self, text: str) -> str:
        """The next log line that holds `text`."""
        assert self.process.stderr
        with self._ended_in_time():
            for line in self.process.stderr:
                self.log += line
                if text in line:
                    return line.rstrip()
        raise AssertionError(f"no line with {text!r} in {self.log}")

    def wait(self) -> int:
        """The exit code, once no process is left that could write to the log."""
        with self._ended_in_time():
            return self.wait_for_end()

    def wait_for_end(self) -> int:
        """The same, however long the server runs."""
        assert self.process.stderr
        self.log += self.process.stderr.read()
        return self.process.wait(TIMEOUT_S)

    @contextmanager
    def _ended_in_time(self) -> Iterator[None]:
        """Kill all of the server if what is waited for does not happen: a test must not hang."""
        timer = threading.Timer(TIMEOUT_S, os.killpg, (self.process.pid, signal.SIGKILL))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def fill_log(self) -> None:
        """Fill the pipe of the log with empty lines, so that every writer waits for a reader.

        Through a description of its own: the server's own would become non-blocking, too.
        """
        assert self.process.stderr
        end = os.open(f"/proc/self/fd/{self.process.stderr.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    os.write(end, b"\n" * size)
        os.close(end)

    def port(self) -> int:
        ready = self.read_until("ready: ")
        match = re.search(r" on 127\.0\.0\.1:(\d+)", ready)
        assert match
        return int(match[1])

    def close(self) -> None:
        """Kill what runs of it."""
        for process in self.left_behind():
            process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()

    def left_behind(self) -> list[psutil.Process]:
        """Processes of its session that run."""
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def wait_for_those_left(self) -> None:
        """Wait until the processes that it left have ended, as long as they may take."""
        for process in self.left_behind():
            try:
                fd = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            select.select([fd], [], [], TIMEOUT_S)
            os.close(fd)

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            member = os.getsid(process.pid) == self.process.pid
            return member and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False


def _quickly(arguments: Sequence[str]) -> Sequence[str]:
    """Options with which a start takes no time for a measurement, and batches are the same."""
    return ("--calibrate", "off") if "pipeline" in arguments else ()


@contextmanager
def service(*arguments: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server on a free port: the port, and the process. It must end by itself on SIGTERM."""
    server = ServerProcess(["-m", "service", *OPTIONS, *_quickly(arguments), *arguments])
    try:
        port = server.port()
        # To its end: a server whose log is not read would wait for its reader.
        with ThreadPoolExecutor(1) as reader:
            exit_code = reader.submit(server.wait_for_end)
            try:
                yield port, server.process
                server.process.send_signal(signal.SIGTERM)
            except BaseException:
                server.process.kill()
                raise
        assert exit_code.result() == 0, server.log
    finally:
        server.close()


@contextmanager
def service_here(*arguments: str) -> Iterator[int]:
    """The same server in a thread of this process, which need not import torch again: the port."""
    options = parse_arguments([*OPTIONS, *_quickly(arguments), *arguments])
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


def refusal(*arguments: str, exit_code: int = 2) -> str:
    """The line with which `python -m service`, run in this process, refuses to start."""
    environment, limit_bytes = dict(os.environ), DECODE_MEMORY.limit_bytes
    with redirect_stderr(io.StringIO()) as written:
        try:
            found = main(["--port", "0", "--workers", "1", *arguments])
        finally:
            # What a server sets for its own process and its children.
            os.environ.clear()
            os.environ.update(environment)
            DECODE_MEMORY.limit_bytes = limit_bytes
    assert found == exit_code
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
