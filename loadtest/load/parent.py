"""The pipe from a program of Locust's to the process that started it: a JSON line a message.

It waits with gevent, so only programs whose sockets locust has patched import this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import Any

from gevent.fileobject import FileObject

from interfaces.messages import from_json, to_json


class Parent:
    """This process's parent, in place of its stdin and stdout."""

    def __init__(self) -> None:
        # Whatever a library prints must not get between the messages.
        self._channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._commands = FileObject(sys.stdin.fileno(), "r", closefd=False)

    def tell(self, message: Any) -> None:
        """Send a message."""
        self._channel.write(to_json(message) + "\n")
        self._channel.flush()

    def receive(self, kinds: Collection[type]) -> Any | None:
        """The next message, one of these kinds; None where the parent is gone."""
        line = self._commands.readline()
        return from_json(line, kinds) if line else None
