"""What `peers` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interfaces.peers import Peer
from loadtest.load.images import LoadImage
from loadtest.servers.variants import Variant
from loadtest.settings import LoadSettings, ServerOptions

QUEUE_MS = 450
"""How long a request may wait under overload, as the service's own --max-queue-ms."""


@dataclass(frozen=True)
class PeerWorkload:
    """A model in one precision.

    Attributes:
        name: what tables call it.
        model: name of the zoo, ONNX file, or "null".
        engine: that runs it everywhere.
        precision: that runs.
        score_tolerance: largest difference of two scores for one image.
    """

    name: str
    model: str
    engine: str
    precision: str
    score_tolerance: float


@dataclass(frozen=True)
class PeersSettings:
    """What is measured; attributes are the options of the same name unless told here.

    Attributes:
        variants: of this project's service; the first one's answers are what others must give.
        peers_dir: folder of the peers' environments.
        client_processes: None for what fits each number of clients.
        on_gpu: whether the engine runs on a GPU of this machine.
        deadline_ms: of a request under overload; later answers are worth nothing.
    """

    workloads: Sequence[PeerWorkload]
    variants: Sequence[Variant]
    peers: Sequence[Peer]
    peers_dir: Path
    servers: ServerOptions
    load: LoadSettings
    clients: Sequence[int]
    client_processes: int | None
    repeats: int
    overload: float
    deadline_ms: float
    on_gpu: bool
    images: Sequence[LoadImage]

    def recorded(self) -> dict[str, object]:
        """What run.json says of them."""
        return {
            **asdict(self.load),
            **asdict(self.servers),
            "repeats": self.repeats,
            "clients": [*self.clients],
            "client_processes": self.client_processes,
            "variants": [variant.name for variant in self.variants],
            "peers": [peer.name for peer in self.peers],
            "workloads": [asdict(workload) for workload in self.workloads],
            "overload": self.overload,
            "deadline_ms": self.deadline_ms,
            "queue_ms": QUEUE_MS,
        }
