"""One measured window: warm-up, load, samples, and the requests that completed within it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.clients import Clients, LoadSettings
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.measured_run import Record, Repeat, Sample
from loadtest.progress import Progress
from loadtest.sampling import Sampler

# A count-bound window has no planned end; this one only keeps a stuck server from holding it.
_LONGEST_WINDOW_S = 24 * 3600.0


@dataclass(frozen=True)
class Window:
    """What one window gave.

    Attributes:
        length_s: from its start to its end.
        records: requests that completed within it, in the order they completed.
        samples: one at its start, one at or right after its end, and those between.
    """

    length_s: float
    records: list[Record]
    samples: list[Sample]

    def as_repeat(self, variant: str, repeat: int) -> Repeat:
        """As a repeat of a variant."""
        return Repeat(
            variant=variant,
            repeat=repeat,
            length_s=self.length_s,
            samples=self.samples,
            records=self.records,
        )


def measure(
    clients: Clients,
    settings: LoadSettings,
    server_pid: int | None,
    gpus: GpuMonitor,
    progress: Progress,
    title: str,
    watch: Callable[[], None],
) -> Window:
    """Put the load on, discard the warm-up, and measure one window.

    All client processes share the window: its start and end are times on the machine's monotonic
    clock, and a request belongs to it if its reply arrived between them. With `total_number` it
    ends with the reply to that request.

    Args:
        clients: made from the same settings, not started yet.
        settings: the load.
        server_pid: root of the server's process tree, or None where it cannot be sampled.
        gpus: the GPUs to sample.
        progress: shows how it goes.
        title: what the progress line calls it.
        watch: called five times a second; raises if the server is gone.

    Raises:
        LoadTestError: a client ended, the server stopped answering, or nothing completed.
    """
    clients.start()

    def show() -> None:
        watch()
        progress.update(f"{title}: {clients.completed} requests, {clients.failed} failed")

    clients.wait(time.perf_counter() + settings.warmup_s, show)
    with Sampler(server_pid, clients.pids, gpus) as sampler:
        start_s = sampler.sample()
        clients.open_window(start_s)
        if settings.duration_s is not None:
            clients.wait(start_s + settings.duration_s, show)
        else:
            assert settings.total_number is not None  # noqa: S101 (one of the two is set)
            # Reports lag behind, so this waits a little too long; the records decide below
            # where the window ends.
            clients.wait(start_s + _LONGEST_WINDOW_S, show, settings.total_number)
        end_s = sampler.sample()
    records = clients.stop(start_s, end_s)
    length_s = end_s - start_s
    if settings.total_number is not None:
        if len(records) < settings.total_number:
            raise LoadTestError(
                f"only {len(records)} of {settings.total_number} requests completed"
            )
        records = records[: settings.total_number]
        length_s = records[-1].completed_s
    if not records:
        raise LoadTestError(
            f"no request completed within {length_s:.1f} s; choose a longer --duration_s"
        )
    return Window(length_s, records, sampler.samples(start_s))
