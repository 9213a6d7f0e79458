"""A client that is safe by design: `from service.client import Client`."""

from interfaces.service import ServerInfo
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
