"""The server's life: start up, serve, drain."""

from __future__ import annotations

import errno
import gc
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

from idl import inference
from service.admission import Admission
from service.connection import Connection
from service.handler import Handler
from service.inference_service import InferenceService
from service.labels import Labels
from service.listening import address_text, bind, listen
from service.processor import MethodTable, Processor, method_table
from service.server_settings import ServerSettings
from service.wake import Wake
from service.warm_up import warm_up

_log = logging.getLogger(__name__)

# Clients that the kernel holds while all connections are taken.
_BACKLOG = 128
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Serves one handler on one port, a thread a connection.

    A context manager. `run` calls `startup`, `serve`, `drain` and `shutdown` in this order, in one
    thread; `stop` may be called from anywhere.

    Attributes:
        address: host and port that it listens on; set by `startup`.
        ready: whether clients are let in.
    """

    def __init__(
        self, settings: ServerSettings, handler_name: str, load_handler: Callable[[], Handler]
    ) -> None:
        self._settings = settings
        self._handler_name = handler_name
        self._load_handler = load_handler
        self._handler: Handler | None = None
        self._listener: socket.socket | None = None
        self._methods: MethodTable = {}
        self._connections: set[Connection] = set()
        self._finished_threads: list[threading.Thread] = []
        self._connections_lock = threading.Lock()
        self._accepting = False
        self._stop_reason = ""
        # All that the serving thread waits for makes one of the selector's sockets readable.
        self._selector = selectors.DefaultSelector()
        self._wake = Wake()
        self._selector.register(self._wake.receiver, selectors.EVENT_READ)
        self.address: tuple[str, int] = (settings.host, settings.port)
        self.ready = False

    @property
    def wakeup_fd(self) -> int:
        """Descriptor for `signal.set_wakeup_fd`, so that a signal is never overlooked."""
        return self._wake.fd

    def run(self) -> int:
        """Start up, serve until stopped, drain.

        Returns:
            How many requests were cut off unfinished; 0 after an orderly stop.

        Raises:
            ConfigurationError: the handler or its labels cannot work.
            OSError: the address cannot be had.
        """
        try:
            self.startup()
            self.serve()
            return self.drain()
        finally:
            self.shutdown()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        self._wake.close()

    def startup(self) -> None:
        """Take the port, load and warm up the handler, then let clients in."""
        # Before the slow part, so that a port in use is told at once.
        self._listener = bind(self._settings.host, self._settings.port)
        self._handler = self._load_handler()
        info = self._handler.info()
        labels = Labels.load(self._settings.labels, info.num_classes)
        warm_up(self._handler)
        admission = Admission(self._settings.max_in_flight_images)
        service = InferenceService(self._handler_name, self._handler, labels, admission)
        self._methods = method_table(inference.InferenceService, service)
        # What start-up made stays for good; collections that pass over it would stall requests.
        gc.collect()
        gc.freeze()
        self._listener.setblocking(False)
        listen(self._listener, _BACKLOG)
        self.address = self._listener.getsockname()[:2]
        self.ready = True
        _log.info(
            "ready: %s handler (%s, %s, %s) on %s",
            self._handler_name,
            info.engine,
            info.precision,
            info.model,
            address_text(self.address),
        )

    def serve(self) -> None:
        """Accept connections until `stop` is called."""
        self._resume_accepting()
        while not self._stop_reason:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._wake.clear()
                    self._join_finished()
                    self._resume_accepting()

    def stop(self, reason: str = "stop was called") -> None:
        """Let `serve` return. Safe in any thread and in a signal handler."""
        self._stop_reason = reason
        self._wake.set()

    def drain(self) -> int:
        """Finish the requests in flight, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.
        """
        if self._listener is not None:
            self._pause_accepting()
            self._listener.close()
        _log.info(
            "stopping (%s): finishing %d requests in flight", self._stop_reason, self._in_flight()
        )
        for connection in self._open_connections():
            connection.stop()
        deadline_s = time.monotonic() + self._settings.drain_timeout_s
        while self._open_connections() and (remaining_s := deadline_s - time.monotonic()) > 0:
            if self._selector.select(remaining_s):
                self._wake.clear()
        self._join_finished()
        cut_off = self._in_flight()
        for connection in self._open_connections():
            connection.cut_off()
        if cut_off:
            _log.error(
                "%d requests were cut off: not finished within --drain-timeout-s = %s",
                cut_off,
                self._settings.drain_timeout_s,
            )
        return cut_off

    def shutdown(self) -> None:
        """Free the port, and the handler unless calls that were cut off still run in it."""
        self.ready = False
        if self._listener is not None:
            self._listener.close()
        if self._handler is not None and not self._in_flight():
            self._handler.close()

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES or not self._open_connections():
                raise
            _log.warning("cannot accept a connection before another closes: %s", error.strerror)
            self._pause_accepting()
            return
        connection = Connection(
            sock,
            address_text(address),
            Processor(self._methods),
            self._settings.max_frame_bytes,
            self._settings.message_timeout_s,
        )
        with self._connections_lock:
            self._connections.add(connection)
            full = len(self._connections) >= self._settings.max_connections
        if full:
            _log.warning(
                "%d connections are open, as --max-connections allows; further ones wait",
                self._settings.max_connections,
            )
            self._pause_accepting()
        thread = threading.Thread(
            target=self._serve_connection,
            args=(connection,),
            name=f"connection-{connection.peer}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            _log.error("closed %s: %s", connection.peer, error)
            sock.close()
            with self._connections_lock:
                self._connections.discard(connection)
            self._wake.set()

    def _serve_connection(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        """Drop a connection; called last of all by the thread that served it."""
        with self._connections_lock:
            self._connections.discard(connection)
            self._finished_threads.append(threading.current_thread())
        self._wake.set()

    def _join_finished(self) -> None:
        """Wait out the last steps of threads whose connections are gone."""
        with self._connections_lock:
            finished, self._finished_threads = self._finished_threads, []
        for thread in finished:
            thread.join()

    def _in_flight(self) -> int:
        return sum(not connection.idle for connection in self._open_connections())

    def _open_connections(self) -> list[Connection]:
        with self._connections_lock:
            return list(self._connections)

    def _pause_accepting(self) -> None:
        if self._accepting and self._listener is not None:
            self._selector.unregister(self._listener)
            self._accepting = False

    def _resume_accepting(self) -> None:
        """Accept again if there is room."""
        if self._accepting or self._listener is None:
            return
        if len(self._open_connections()) < self._settings.max_connections:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._accepting = True
