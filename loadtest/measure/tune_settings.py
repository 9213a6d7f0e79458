"""What `tune` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from loadtest.load.images import LoadImage
from loadtest.servers.variants import Variant, Workload
from loadtest.settings import LoadSettings, ServerOptions


@dataclass(frozen=True)
class TuneSettings:
    """What is tuned; attributes are the options of the same name unless told here.

    Attributes:
        variant: which of the service's variants is tuned.
        servers: how they run; the default's gets the port, the others the one behind it.
        load: with the length of a window.
        clients: rungs of the ladder, ascending.
        client_processes: None for what fits each number of clients.
        repeats: pairs of ladders at the end.
    """

    workload: Workload
    variant: Variant
    servers: ServerOptions
    load: LoadSettings
    clients: Sequence[int]
    client_processes: int | None
    slo_ms: float
    budget_s: float
    tries: int | None
    repeats: int
    score_tolerance: float
    images: Sequence[LoadImage]

    def recorded(self) -> dict[str, object]:
        """What run.json says of them."""
        return {
            **asdict(self.load),
            **asdict(self.servers),
            "clients": [*self.clients],
            "client_processes": self.client_processes,
            "slo_ms": self.slo_ms,
            "budget_s": self.budget_s,
            "tries": self.tries,
            "repeats": self.repeats,
            "variant": self.variant.name,
        }
