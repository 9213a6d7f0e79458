"""Clients that are safe by design: `from service.client import Client, AsyncClient`.

Both need thriftpy2 alone. `from thriftpipe import Client, AsyncClient` gives the same.
"""

from interfaces.service import ServerInfo
from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.errors import (
    ClientClosedError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidImageError,
    InvalidReplyError,
    InvalidRequestError,
    OverloadedError,
    RefusedCallError,
)
from service.client.images import Image
from service.client.results import Classification, ClassScore, Health

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
