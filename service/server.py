"""The server's life: start up, serve, drain."""

from __future__ import annotations

import gc
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable

from idl import inference
from service.admission import Admission
from service.arrivals import Arrivals, StopAhead, StopRequested
from service.call_limits import CallLimits
from service.caller import serve_caller
from service.connection import Connection
from service.handler import Handler
from service.inference_service import InferenceService
from service.labels import Labels
from service.message_memory import MessageMemory
from service.placement import Placement
from service.processor import MethodTable, Processor, method_table
from service.readiness import Readiness
from service.server_settings import ServerSettings
from service.tls import TlsTransport, tls_context
from service.transport import PlainTransport, Transport
from service.wake import Wake
from service.warm_up import warm_up

_log = logging.getLogger(__name__)

_ALONE = Placement()


class Server:
    """Serves one handler, a thread a connection.

    A context manager. `run` calls `startup`, `serve`, `drain` and `shutdown` in this order, in one
    thread; `stop` may be called from anywhere.

    Args:
        settings: what its clients may cost.
        handler_name: its name for `server_info`.
        load_handler: makes the handler; the slow part of a start.
        arrivals: where its connections come from.
        placement: its place among the server's processes.

    Attributes:
        ready: whether it is past its start, so that a stop has to drain it.
    """

    def __init__(
        self,
        settings: ServerSettings,
        handler_name: str,
        load_handler: Callable[[], Handler],
        arrivals: Arrivals,
        placement: Placement = _ALONE,
    ) -> None:
        self._settings = settings
        self._arrivals = arrivals
        self._placement = placement
        self._handler_name = handler_name
        self._load_handler = load_handler
        self._handler: Handler | None = None
        self._readiness: Readiness | None = None
        self._methods: MethodTable = {}
        self._limits = settings.message_limits
        self._memory = MessageMemory(settings.max_buffered_bytes)
        self._timeouts = settings.timeouts
        self._tls: ssl.SSLContext | None = None
        self._connections: set[Connection] = set()
        self._finished_threads: list[threading.Thread] = []
        self._connections_lock = threading.Lock()
        self._stop_reason = ""
        # All that the serving thread waits for makes one of the selector's sockets readable.
        self._selector = selectors.DefaultSelector()
        self._wake = Wake()
        self._selector.register(self._wake.receiver, selectors.EVENT_READ)
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
            ConfigurationError: the handler, its labels or the certificate cannot work.
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
        # Before the slow part, so that a port in use or a wrong certificate is told at once.
        self._arrivals.open()
        self._tls = tls_context(self._settings)
        self._handler = self._load_handler()
        info = self._handler.info()
        labels = Labels.load(self._settings.labels, info.num_classes)
        warm_up(self._handler)
        self._readiness = Readiness(self._handler)
        service = InferenceService(
            self._handler_name,
            self._handler,
            labels,
            Admission(info.images_at_work, self._settings.max_queue),
            CallLimits(self._settings),
            self._placement,
            self._readiness,
        )
        self._methods = method_table(inference.InferenceService, service)
        # What start-up made stays for good; collections that pass over it would stall requests.
        gc.collect()
        gc.freeze()
        runs = f"{info.engine}, {info.precision}, {info.model}"
        # First, since whoever reads that it is ready may stop it at once.
        self.ready = True
        self._arrivals.let_in(self._selector, f"{self._handler_name} handler ({runs})")

    def serve(self) -> None:
        """Accept connections until `stop` is called, and for `unready_s` after that."""
        while not self._stop_reason:
            self._turn(None)
        if not self._settings.unready_s:
            return
        self._not_ready(self._stop_reason)
        _log.info(
            "stopping (%s): not ready, and serving on for --unready-s = %s",
            self._stop_reason,
            self._settings.unready_s,
        )
        end_s = time.monotonic() + self._settings.unready_s
        while (remaining_s := end_s - time.monotonic()) > 0:
            self._turn(remaining_s)

    def stop(self, reason: str = "stop was called") -> None:
        """Let `serve` return. Safe in any thread and in a signal handler."""
        self._stop_reason = reason
        self._wake.set()

    def drain(self) -> int:
        """Finish the requests in flight, for `drain_timeout_s` at most.

        Returns:
            How many requests were cut off unfinished.
        """
        self._not_ready(self._stop_reason)
        self._arrivals.close()
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
        self._arrivals.close()
        if self._handler is not None and not self._in_flight():
            self._handler.close()

    def _turn(self, timeout_s: float | None) -> None:
        """Wait for something to happen, for `timeout_s` at most, and deal with it."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._wake.receiver:
                self._wake.clear()
                self._arrivals.left(self._join_finished())
            else:
                self._accept()

    def _not_ready(self, reason: str) -> None:
        if self._readiness is not None:
            self._readiness.end(reason)

    def _transport(self, sock: socket.socket) -> Transport:
        if self._tls is None:
            return PlainTransport(sock, self._timeouts)
        return TlsTransport(sock, self._timeouts, self._tls)

    def _accept(self) -> None:
        try:
            arrival = self._arrivals.accept()
        except StopRequested as request:
            self.stop(str(request))
            return
        except StopAhead as announced:
            self._not_ready(str(announced))
            _log.info("not ready: the server will stop (%s)", announced)
            return
        if arrival is None:
            return
        connection = Connection(
            self._transport(arrival.sock),
            arrival.peer,
            Processor(self._methods),
            self._limits,
            self._memory,
        )
        with self._connections_lock:
            self._connections.add(connection)
        thread = threading.Thread(
            target=self._serve_connection,
            args=(connection, arrival.sock),
            name=f"connection-{connection.peer}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            _log.error("closed %s: %s", connection.peer, error)
            arrival.sock.close()
            with self._connections_lock:
                self._connections.discard(connection)
            self._arrivals.left(1)

    def _serve_connection(self, connection: Connection, sock: socket.socket) -> None:
        serve_caller(sock)
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

    def _join_finished(self) -> int:
        """Wait out the last steps of threads whose connections are gone, and count them."""
        with self._connections_lock:
            finished, self._finished_threads = self._finished_threads, []
        for thread in finished:
            thread.join()
        return len(finished)

    def _in_flight(self) -> int:
        return sum(not connection.idle for connection in self._open_connections())

    def _open_connections(self) -> list[Connection]:
        with self._connections_lock:
            return list(self._connections)
