"""What a call can fail with: one line each, which names the server."""

from __future__ import annotations


class ClientError(Exception):
    """Whatever keeps a call, or one image of it, from its result."""


class InvalidImageError(ClientError):
    """The image cannot be read or decoded; sent again, it fails again."""


class InvalidRequestError(ClientError):
    """The call as a whole passes a limit or makes no sense; sent again, it fails again."""


class CallTooLargeError(InvalidRequestError):
    """The call has more bytes than this client sends; nothing was sent."""


class OverloadedError(ClientError):
    """The server refused the call before any work, and retries did not help in time.

    Attributes:
        retry_after_ms: when the server thinks that it can take more.
    """

    def __init__(self, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class DeadlineExceededError(ClientError):
    """The time of the call was over before its result was there."""


class InternalServerError(ClientError):
    """The server failed.

    Attributes:
        error_id: under which the cause is in the server's log; "" where it gave none.
    """

    def __init__(self, message: str, error_id: str = "") -> None:
        super().__init__(message)
        self.error_id = error_id


class RefusedCallError(ClientError):
    """The server does not take this call, or took it for no Thrift message."""


class InvalidReplyError(ClientError):
    """What came back is no acceptable reply to this call; its connection is closed."""


class ConnectionFailedError(ClientError):
    """There is no connection, or it broke before the reply was complete.

    Attributes:
        refused: whether no server listened, so that nothing can have been sent.
        unanswered: whether the connection stood, and broke before a byte of the reply had come.
    """

    def __init__(self, message: str, *, refused: bool = False, unanswered: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        self.unanswered = unanswered


class ClientClosedError(ClientError):
    """The client was closed, or belongs to the process that this one was forked from."""
