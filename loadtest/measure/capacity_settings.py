"""What `capacity` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.load.images import LoadImage
from loadtest.settings import LoadSettings


@dataclass(frozen=True)
class CapacitySettings:
    """What is searched; attributes are the options of the same name unless told here.

    Attributes:
        load: of clients that wait, with the arrivals of the open loops.
        client_processes: of the open loops; None for what their rate needs.
    """

    load: LoadSettings
    client_processes: int | None
    slo_ms: float
    budget_s: float
    tries: int | None
    images: Sequence[LoadImage]
