"""What servers, clients and the load test have in common, besides the IDL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PORT = 8095
MAX_FRAME_BYTES = 16_384_000
"""Size of the largest message, unless another is set."""
MAX_IMAGE_PIXELS = 51_000_000
"""Of the largest image, unless another limit is set: 0.5 s on an Intel Xeon
(results/image-costs)."""

NOTE = "note"
"""The key of `settings` with what users of the model's answers have to know."""

OPTIONS_GIVEN = "options"
"""The key of `settings` with the options that are no defaults, and where each is from."""

CLASSES = "classes"
"""The key of `settings` with the number of the model's classes."""


@dataclass(frozen=True)
class ServerInfo:
    """What answers; the attributes are those of the IDL's ServerInfo.

    Only a server with several workers sets the last three.
    """

    handler: str
    engine: str
    precision: str
    model: str
    model_sha256: str
    config_sha256: str
    pid: int
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    worker: int | None = None
    workers: int | None = None
    supervisor_pid: int | None = None

    @property
    def note(self) -> str:
        """The setting of that name, or ""."""
        return self.settings.get(NOTE, "")

    @property
    def classes(self) -> int | None:
        """How many classes the model has; None where the server does not say."""
        return number_of_classes(self.settings)


def number_of_classes(settings: Mapping[str, str]) -> int | None:
    """The setting of that name; None where there is none, or no number."""
    text = settings.get(CLASSES, "")
    # An i32 has no more digits.
    return int(text) if text.isdecimal() and len(text) <= 10 else None
