"""thriftpipe: image classification behind Thrift, and the pipelines that it runs.

`from thriftpipe import Client, AsyncClient`: the clients, and their errors and results.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.client import (
        AsyncClient,
        Classification,
        ClassScore,
        Client,
        ClientClosedError,
        ClientError,
        ConnectionFailedError,
        DeadlineExceededError,
        Health,
        Image,
        InternalServerError,
        InvalidImageError,
        InvalidReplyError,
        InvalidRequestError,
        OverloadedError,
        RefusedCallError,
        ServerInfo,
    )

__version__ = "0.1.0"

# Those of service.client.
__all__ = [
    "AsyncClient",
    "ClassScore",
    "Classification",
    "Client",
    "ClientClosedError",
    "ClientError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "Health",
    "Image",
    "InternalServerError",
    "InvalidImageError",
    "InvalidReplyError",
    "InvalidRequestError",
    "OverloadedError",
    "RefusedCallError",
    "ServerInfo",
]


def __getattr__(name: str) -> Any:
    """A name of the clients, loaded when it is first used: others need no client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import service.client

    return getattr(service.client, name)
