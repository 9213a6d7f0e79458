"""How a log record becomes a line: text for people, or JSON for programs."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any


@dataclass(frozen=True)
class Event:
    """A log message that programs read, too.

    In text its fields stand behind its name, in JSON they are fields of the line.

    Attributes:
        name: what has happened.
        fields: name to value; a None is left out.
    """

    name: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        told = " ".join(f"{key}={_text(value)}" for key, value in self.known().items())
        return f"{self.name}: {told}"

    def known(self) -> dict[str, Any]:
        """The fields that have a value."""
        return {key: value for key, value in self.fields.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def formatter(log_format: str, speaker: str) -> logging.Formatter:
    """What makes lines of log records.

    Args:
        log_format: "text" or "json".
        speaker: which process of the server this is; "" for the one that was started.
    """
    if log_format == "json":
        return JsonFormatter(speaker)
    named = f"{speaker} " if speaker else ""
    return logging.Formatter(f"%(asctime)s %(levelname)s {named}%(name)s: %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Its fields are time (RFC 3339, UTC), level, process, pid, logger, message and, if there is one,
    exception; those of an `Event` come behind these.

    Args:
        speaker: the field `process`; "server" where it is empty.
    """

    def __init__(self, speaker: str) -> None:
        super().__init__()
        self._speaker = speaker or "server"

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message: object = record.msg
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "process": self._speaker,
            "pid": record.process,
            "logger": record.name,
            "message": message.name if isinstance(message, Event) else record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if isinstance(message, Event):
            line.update(message.known())
        return json.dumps(line, ensure_ascii=False, default=str)
