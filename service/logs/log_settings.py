"""The options of the log."""

from __future__ import annotations

from dataclasses import dataclass

from interfaces.kinds import one_of
from interfaces.options import option


@dataclass(frozen=True)
class LogSettings:
    """What is logged, how, and where to; the same for all processes of a server."""

    log_level: str = option(
        "info",
        "least severe log lines; the ready line is an info line",
        one_of(("debug", "info", "warning", "error")),
        group="server",
    )
    log_format: str = option(
        "text",
        "how log lines are written: for people, or one JSON object a line",
        one_of(("text", "json")),
        group="server",
    )
    log_file: str | None = option(
        None,
        "file to which log lines are appended; after it was moved away a new one is made, at once "
        "on SIGHUP, which then does not stop the server",
        metavar="FILE",
        default_text="stderr",
        group="server",
    )
