"""`scenario.Client` with thriftpy2, and with Apache Thrift's own Python library."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.Thrift import TApplicationException, TMessageType
from thrift.transport.TSocket import TSocket
from thriftpy2.thrift import TApplicationException as ThriftpyApplicationException

from idl import inference
from tests.serving import TIMEOUT_S, connect

STUBS = Path(__file__).parent / "python" / "gen-py"

sys.path.insert(0, str(STUBS))
apache_types = importlib.import_module("inference.ttypes")
apache_service = importlib.import_module("inference.InferenceService")


class ThriftpyClient:
    """thriftpy2, with the IDL file itself."""

    types = inference
    application_error = ThriftpyApplicationException

    def __init__(self, port: int) -> None:
        self._client = connect(port)

    def send(self, method: str, *arguments: Any) -> None:
        fields = getattr(inference.InferenceService, f"{method}_args").thrift_spec.values()
        names = [field[1] for field in fields]
        self._client._send(method, **dict(zip(names, arguments, strict=True)))

    def send_empty(self, method: str) -> None:
        protocol = self._client._oprot
        protocol.write_message_begin(method, TMessageType.CALL, 0)
        inference.InferenceService.ping_args().write(protocol)
        protocol.write_message_end()
        protocol.trans.flush()

    def receive(self, method: str) -> Any:
        return self._client._recv(method)

    def close(self) -> None:
        self._client.close()


class ApacheClient:
    """Apache Thrift, with the stubs that its compiler made.

    Args:
        port: the server's.
        transport: wraps a socket, such as TFramedTransport.
        protocol: reads and writes the transport, such as TBinaryProtocol.
    """

    types = apache_types
    application_error = TApplicationException

    def __init__(self, port: int, transport: Any, protocol: Any = TBinaryProtocol) -> None:
        sock = TSocket("127.0.0.1", port)
        sock.setTimeout(TIMEOUT_S * 1000)
        self._transport = transport(sock)
        self._transport.open()
        self._protocol = protocol(self._transport)
        self._client = apache_service.Client(self._protocol)

    def send(self, method: str, *arguments: Any) -> None:
        getattr(self._client, f"send_{method}")(*arguments)

    def send_empty(self, method: str) -> None:
        self._protocol.writeMessageBegin(method, TMessageType.CALL, 0)
        apache_service.ping_args().write(self._protocol)
        self._protocol.writeMessageEnd()
        self._transport.flush()

    def receive(self, method: str) -> Any:
        return getattr(self._client, f"recv_{method}")()

    def close(self) -> None:
        self._transport.close()
