"""Connections to the service: framed binary Thrift, one blocking call at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TClient, TException
from thriftpy2.transport import TCyFramedTransport, TSocket

from idl import inference
from interfaces.service import PORT, ServerInfo
from loadtest.errors import LoadTestError
from loadtest.records import machine


def open_client(host: str, port: int, timeout_s: float) -> Any:
    """A connected `InferenceService` client; TSocket sets TCP_NODELAY.

    Raises:
        TTransportException: nothing accepts connections there.
    """
    # As thriftpy2.rpc does it, which imports asyncio and a server, too.
    sock: Any = TSocket
    protocol: Any = TCyBinaryProtocol
    transport = TCyFramedTransport(sock(host, port, socket_timeout=int(timeout_s * 1000)))
    transport.open()
    return TClient(inference.InferenceService, protocol(transport))


def address_of(host: str) -> tuple[str, int]:
    """Host and port of "HOST", "HOST:PORT" or "thrift://HOST:PORT".

    Raises:
        LoadTestError: it is none of these.
    """
    scheme, _, rest = host.rpartition("://")
    name, colon, port = rest.rstrip("/").partition(":")
    if scheme not in {"", "thrift"} or not name or "/" in rest.rstrip("/"):
        known = "HOST, HOST:PORT or thrift://HOST:PORT"
        raise LoadTestError(f"--host must be {known}, got {host!r}")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise LoadTestError(f"the port of --host must be 1 to 65535, got {port!r}")
    return name, int(port) if colon else PORT


@contextmanager
def connection(host: str, port: int, timeout_s: float = 30.0) -> Iterator[Any]:
    """A client for the block; whatever fails on the wire becomes one line.

    Raises:
        LoadTestError: nothing answers there, or not in this protocol.
    """
    try:
        client = open_client(host, port, timeout_s)
    except (TException, OSError) as error:
        raise LoadTestError(
            f"nothing accepts connections at {host}:{port}; "
            "start a server (`python -m service --handler pipeline`) or name another with "
            "--host and --port"
        ) from error
    try:
        yield client
    except (TException, OSError, EOFError) as error:
        raise LoadTestError(f"the call to {host}:{port} failed: {describe(error)}") from error
    finally:
        client.close()


def describe(error: BaseException) -> str:
    """An exception in one line: its type, and its message where it has one."""
    message = getattr(error, "message", None) or str(error)
    if isinstance(message, bytes):
        message = message.decode("utf-8", "replace")
    text = " ".join(str(message).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class ServerIdentity(ServerInfo):
    """What answers, as `server_info` says it."""

    @property
    def root_pid(self) -> int:
        """The process above all others of the server: the supervisor, where there is one."""
        return self.pid if self.supervisor_pid is None else self.supervisor_pid

    def as_record(self) -> dict[str, Any]:
        """What result files say of it: no paths, and nothing that differs between processes."""
        record = asdict(self)
        for own in ("pid", "worker", "supervisor_pid"):
            del record[own]
        return dict(machine.without_paths(record))


def server_identity(host: str, port: int, timeout_s: float = 30.0) -> ServerIdentity:
    """Ask the server for its identity.

    Raises:
        LoadTestError: nothing answers, or not `server_info`.
    """
    with connection(host, port, timeout_s) as client:
        info = client.server_info()
    said: dict[str, Any] = {
        entry.name: getattr(info, entry.name, None) for entry in fields(ServerIdentity)
    }
    for name in ("versions", "settings"):
        said[name] = dict(sorted(said[name].items()))
    return ServerIdentity(**said)
