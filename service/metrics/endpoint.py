"""HTTP for Prometheus and for orchestrators: /metrics, /livez, /readyz and /info."""

from __future__ import annotations

import json
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from interfaces.extras import install_command
from interfaces.stats import Stats
from service.accepting.listening_socket import AddressOptions, address_text, bind, listen
from service.errors import ConfigurationError
from service.logs.rate_limited import RateLimitedWarnings
from service.metrics.metric_table import Snapshot
from service.processes.lifecycle import STARTING, Lifecycle

_log = logging.getLogger(__name__)
# Clients choose how often.
_failures = RateLimitedWarnings(_log)

_OPTIONS = AddressOptions("--metrics-host", "--metrics-port")
# A client that is silent for longer is cut off.
_TIMEOUT_S = 5.0
# Under way at once.
_MOST_REQUESTS = 16
# After an accept that failed, such as for lack of descriptors.
_PAUSE_S = 1.0
_TEXT = "text/plain; charset=utf-8"


@contextmanager
def http_endpoint(host: str, port: int) -> Iterator[HttpEndpoint]:
    """Answers HTTP there while the context is entered.

    Raises:
        ConfigurationError: the extra `metrics` is missing.
        OSError: the address cannot be had.
    """
    try:
        from service.metrics.exposition import exposition
    except ImportError as error:
        raise ConfigurationError(
            f"--metrics-port needs the package prometheus-client ({error}): "
            f"{install_command('metrics')}"
        ) from error
    sock = bind(host, port, _OPTIONS)
    endpoint = HttpEndpoint(sock, exposition)
    thread = threading.Thread(target=endpoint.serve, name="http", daemon=True)
    thread.start()
    _log.info("metrics on http://%s/metrics", address_text(endpoint.server_address))
    try:
        yield endpoint
    finally:
        endpoint.stop()
        thread.join()
        endpoint.server_close()


class HttpEndpoint(ThreadingHTTPServer):
    """Listens, and answers each request in a thread of its own.

    Args:
        sock: bound already.
        exposition: makes the text of /metrics.

    Attributes:
        server: what is told of; None until there is one.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, sock: socket.socket, exposition: Callable[..., tuple[bytes, str]]) -> None:
        super().__init__(sock.getsockname(), _RequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self.exposition = exposition
        self.server: Lifecycle | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # In the order in which they came.
        self._incomplete: dict[Any, None] = {}
        self._answered: set[Any] = set()
        self.server_activate()

    def server_activate(self) -> None:
        """Let clients in."""
        listen(self.socket, self.request_queue_size, _OPTIONS)

    def serve(self) -> None:
        """Answer until `stop` is called."""
        while not self._stopping.is_set():
            self.handle_request()

    def stop(self) -> None:
        """Let `serve` return."""
        self._stopping.set()
        # It ends the wait for a client; `serve_forever` would poll for it.
        self.socket.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a client; what fails is tried again after a pause, not at once and for ever."""
        try:
            return super().get_request()
        except OSError:
            self._stopping.wait(_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a request.

        Beyond the most at once, the one that has been incomplete for longest is cut off, so that
        clients that send nothing keep no probe away; where none is incomplete, this one is.
        """
        with self._lock:
            is_full = len(self._incomplete) + len(self._answered) >= _MOST_REQUESTS
            if is_full and self._incomplete:
                self._cut_off(next(iter(self._incomplete)))
                is_full = False
            if not is_full:
                self._incomplete[request] = None
        if is_full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; also that of a request for which there is no thread."""
        with self._lock:
            self._incomplete.pop(request, None)
            self._answered.discard(request)
        super().shutdown_request(request)

    def may_answer(self, request: Any) -> bool:
        """Whether a complete request may be answered: it was not cut off, and no longer will be."""
        with self._lock:
            is_here = request in self._incomplete
            if is_here:
                del self._incomplete[request]
                self._answered.add(request)
            return is_here

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone costs a line at the level DEBUG."""
        del request
        _log.debug("a request of %s was not answered", client_address, exc_info=True)

    def _cut_off(self, request: Any) -> None:
        """End an incomplete request: its thread then reads the end of the stream."""
        del self._incomplete[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _RequestHandler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server_version = "thriftpipe"
    sys_version = ""
    server: HttpEndpoint

    def do_GET(self) -> None:
        answers = {
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/info": self._info,
        }
        if not self.server.may_answer(self.connection):
            return
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, f"not found; there are {', '.join(answers)}\n")
            return
        try:
            answer()
        except TimeoutError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        except ConnectionError:
            # The client has gone.
            raise
        except Exception:  # noqa: BLE001 (told in the log, which a client cannot fill)
            _failures.warn("%s cannot be answered: %s", self.path, traceback.format_exc())
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log has why\n")

    do_HEAD = do_GET  # noqa: N815 (the base class looks for this name)

    def _metrics(self) -> None:
        server = self.server.server
        if server is None:
            snapshot = Snapshot(Stats(), None, STARTING)
        else:
            snapshot = Snapshot(server.stats(), server.info(), server.why_not_ready())
        text, content_type = self.server.exposition(snapshot, self.headers.get("Accept", ""))
        self._send(HTTPStatus.OK, text, content_type)

    def _livez(self) -> None:
        server = self.server.server
        if server is None or server.lives():
            self._send(HTTPStatus.OK, "alive\n")
        else:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "the serving thread hangs\n")

    def _readyz(self) -> None:
        server = self.server.server
        if reason := STARTING if server is None else server.why_not_ready():
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n")
        else:
            self._send(HTTPStatus.OK, "ready\n")

    def _info(self) -> None:
        server = self.server.server
        info = None if server is None else server.info()
        if info is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{STARTING}\n")
        else:
            text = json.dumps(vars(info), indent=2, sort_keys=True) + "\n"
            self._send(HTTPStatus.OK, text, "application/json")

    def _send(self, status: HTTPStatus, content: str | bytes, content_type: str = _TEXT) -> None:
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A request is a line at the level DEBUG."""
        _log.debug("%s: " + format, self.address_string(), *arguments)
