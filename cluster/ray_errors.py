"""What Ray says of a failure, in one line; its tracebacks are for the log's level debug."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import AuthenticationError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException

_log = logging.getLogger(__name__)

# Lines of a traceback, and what Ray and Python put between the errors of a chain.
_OF_TRACEBACK = re.compile(
    r"\s|(\w+: )?Traceback \(|ray::|The above exception was|During handling of the|\(.*pid=\d+"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CLASS_PATH = re.compile(r"^(?:\w+\.)+(?=\w+(?:Error|Exception)\b)")
WANTS_AUTHENTICATION = (
    "the cluster wants Ray's token: give this process the one of its head, as the file "
    "~/.ray/auth_token, in RAY_AUTH_TOKEN or as RAY_AUTH_TOKEN_PATH, and RAY_AUTH_MODE=token; or "
    "start head and nodes with RAY_AUTH_MODE=disabled"
)


def in_words(told: BaseException | str) -> str:
    """One line of an error, or of a text of Ray's with tracebacks in it."""
    if isinstance(told, AuthenticationError):
        return WANTS_AUTHENTICATION
    if isinstance(told, RayTaskError) and isinstance(told.cause, BaseException):
        return in_words(told.cause)
    lines = [
        _CLASS_PATH.sub("", line).strip()
        for line in _COLOUR.sub("", str(told)).splitlines()
        if line.strip() and not _OF_TRACEBACK.match(line)
    ]
    # Each error of a chain repeats the one before it.
    text = " ".join(dict.fromkeys(lines))
    return text or (type(told).__name__ if isinstance(told, BaseException) else "")


@contextmanager
def asking(whom: str) -> Iterator[None]:
    """Raise ConnectionError, with a line that says what to do, for whatever Ray raises.

    Args:
        whom: what does not answer then, such as "Ray Serve".
    """
    try:
        yield
    except (RayError, RayServeException, ConnectionError) as error:
        _log.debug("%s does not answer", whom, exc_info=True)
        raise ConnectionError(
            f"{whom} does not answer: {in_words(error)}; `ray status` on the head's host shows "
            "whether the head and its nodes run"
        ) from error
