"""What `compare` and `sweep` are asked for, and the blocks of windows that it amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from loadtest.load.images import LoadImage
from loadtest.measure.plan import UNLIMITED, TimeLimit
from loadtest.measure.series import interleaved
from loadtest.servers.variants import Variant, Workload
from loadtest.settings import LoadSettings, ServerOptions


@dataclass(frozen=True)
class Block:
    """Windows of one variant with one server: number of clients, None for the load's; repeat."""

    variant: Variant
    windows: Sequence[tuple[int | None, int]]


@dataclass(frozen=True)
class ComparisonSettings:
    """What is measured; attributes are the options of the same name unless told here.

    Attributes:
        workloads: models.
        variants: table rows, and parts of the service to measure alone.
        adds_controls: whether rows are added that have as many processes as the pipeline, whose
            own number is in its name then.
        fits_windows: whether windows get shorter where rows are added.
        servers: how the variants run.
        load: how they are loaded.
        clients: numbers of closed-loop clients of a sweep; empty for a comparison, in which the
            load has the number.
        client_processes: of a sweep; None for what fits each number of clients.
        decoder_tolerance: the score tolerance where one of two variants decodes on the GPU.
        images: what to send.
        time_limit: when to measure nothing more.
    """

    workloads: Sequence[Workload]
    variants: Sequence[Variant]
    servers: ServerOptions
    load: LoadSettings
    repeats: int
    score_tolerance: float
    decoder_tolerance: float
    images: Sequence[LoadImage]
    stages_s: float = 0.0
    clients: Sequence[int] = ()
    client_processes: int | None = None
    tp99_limit_ms: float = 0.0
    keep_servers: bool = False
    time_limit: TimeLimit = UNLIMITED
    adds_controls: bool = False
    fits_windows: bool = False

    @property
    def is_sweep(self) -> bool:
        """True if every variant is measured at several numbers of clients."""
        return bool(self.clients)

    @property
    def compared(self) -> list[Variant]:
        """The rows of the comparison."""
        return [variant for variant in self.variants if not variant.is_part]

    @property
    def served(self) -> list[Variant]:
        """Those of them that are servers."""
        return [variant for variant in self.compared if variant.handler is not None]

    @property
    def staged(self) -> list[Variant]:
        """Those whose requests tell where their time goes.

        A control's go where the baseline's or the pipeline's do, without the wait for the lock.
        """
        return [v for v in self.served if not v.is_control] if self.stages_s else []

    @property
    def ports_per_workload(self) -> int:
        """How many servers of a workload may run at once: each may have a control."""
        return len(self.served) * (2 if self.adds_controls else 1)

    @property
    def parts(self) -> list[Variant]:
        """What is measured alone, once."""
        return [variant for variant in self.variants if variant.is_part]

    def rounds(self) -> list[list[Block]]:
        """What is measured or left out as a whole: a repeat of all variants, or a turn of one.

        Forwards and backwards in turn, so that a drift favours no variant and no number of clients.
        Two turns of a sweep's variant that follow on each other are one block.
        """
        if not self.is_sweep:
            blocks = [Block(v, [(None, n)]) for v, n in interleaved(self.compared, self.repeats)]
            size = len(self.compared)
            return [blocks[start : start + size] for start in range(0, len(blocks), size)]
        of_repeat = groupby(interleaved(self.clients, self.repeats), key=lambda window: window[1])
        windows = {repeat: [*group] for repeat, group in of_repeat}
        turns = groupby(interleaved(self.variants, self.repeats), key=lambda turn: turn[0])
        return [
            [Block(variant, [window for _, repeat in group for window in windows[repeat]])]
            for variant, group in turns
        ]

    def recorded(self, load: LoadSettings) -> dict[str, object]:
        """What run.json says of them."""
        sweep = {
            "clients": [*self.clients],
            "client_processes": self.client_processes,
            "tp99_limit_ms": self.tp99_limit_ms,
        }
        return {
            **asdict(load),
            **asdict(self.servers),
            **(sweep if self.is_sweep else {}),
            "repeats": self.repeats,
            "keep_servers": self.keep_servers,
            "variants": [variant.name for variant in self.variants],
            "workloads": [workload.model for workload in self.workloads],
        }
