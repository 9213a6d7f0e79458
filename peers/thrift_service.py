"""The Thrift service of peers that have no wire of their own, on thriftpy2's threaded server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thriftpy2.protocol import TCyBinaryProtocolFactory
from thriftpy2.rpc import make_server
from thriftpy2.transport import TCyFramedTransportFactory

from idl import inference
from interfaces.peers import Setup


class _Service:
    def __init__(self, classify: Callable[[bytes], tuple[str, float]]) -> None:
        self._classify = classify

    def ping(self) -> None:
        """Nothing."""

    def infer_batch(self, params: Any) -> Any:
        """The best label of one image."""
        try:
            label, score = self._classify(params.data)
        except ValueError as error:
            raise inference.InvalidImage(message=str(error), uuid=params.uuid) from error
        return inference.InferenceResult(label=label, score=score)


def serve(setup: Setup, classify: Callable[[bytes], tuple[str, float]]) -> None:
    """Serve until the process ends: a thread for each connection."""
    server = make_server(
        inference.InferenceService,
        _Service(classify),
        setup.host,
        setup.port,
        proto_factory=TCyBinaryProtocolFactory(),  # type: ignore[no-untyped-call]
        trans_factory=TCyFramedTransportFactory(),
        client_timeout=None,  # type: ignore[arg-type]
    )
    server.serve()
