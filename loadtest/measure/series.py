"""Windows one after the other: what all measurements of several windows have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from loadtest.load.clients import ClientPool, Clients, fitting_client_processes
from loadtest.load.images import LoadImage
from loadtest.measure.plan import Plan
from loadtest.measure.window import ServerUnderLoad, measure_window
from loadtest.progress import Progress, minutes
from loadtest.records import machine
from loadtest.records.probe import Gpus
from loadtest.records.run import Window, WorkloadRun
from loadtest.servers.server_process import require_free_port
from loadtest.servers.variants import HOST
from loadtest.settings import LoadSettings

_T = TypeVar("_T")


def interleaved(entries: Sequence[_T], repeats: int) -> list[tuple[_T, int]]:
    """(entry, repeat number) in the order A B C, C B A, A B C, ...

    A machine that slowly changes its speed thus favours no entry.
    """
    order: list[tuple[_T, int]] = []
    for repeat in range(1, repeats + 1):
        row = entries if repeat % 2 else entries[::-1]
        order.extend((entry, repeat) for entry in row)
    return order


class Series:
    """Measures windows with client processes that stay between them, until `close`.

    Args:
        images: what clients send.
        client_processes: None for what fits each number of clients.
        progress: shows how it goes.

    Attributes:
        gpus: those of this machine, which are sampled.
    """

    def __init__(
        self, images: Sequence[LoadImage], client_processes: int | None, progress: Progress
    ) -> None:
        self._images = images
        self._client_processes = client_processes
        self._progress = progress
        self._pool: ClientPool | None = None
        self.gpus = Gpus()

    def processes_of(self, clients: int) -> int:
        """How many processes so many closed-loop clients share."""
        if self._client_processes is not None:
            return min(self._client_processes, clients)
        with_gpu = bool(self.gpus.names)
        return fitting_client_processes(clients, machine.usable_cores(), with_gpu=with_gpu)

    def closed_load(self, load: LoadSettings, clients: int) -> LoadSettings:
        """The load of so many clients that wait for their answers."""
        processes = self.processes_of(clients)
        return replace(load, request_client=clients, client_processes=processes)

    def have_processes(self, count: int) -> None:
        """Have at least so many client processes; new ones load while a server starts."""
        if self._pool is None or len(self._pool.processes) < count:
            self.close()
            self._pool = ClientPool(count)

    def replace_processes(self) -> None:
        """Have as many new ones: after a failure they may be in the middle of a load."""
        if self._pool is not None:
            self._pool.close()
            self._pool = ClientPool(len(self._pool.processes))

    def measure(
        self,
        variant: str,
        repeat: int,
        load: LoadSettings,
        server: ServerUnderLoad,
        title: str,
        expected_labels: Mapping[str, str],
        *,
        counts_nodes: bool = False,
    ) -> Window:
        """One window; every repeat has an order of images of its own, the same for all variants.

        Args:
            variant: what is measured.
            repeat: its number.
            load: with the seed of repeat 0.
            server: what is under load.
            title: what the progress line calls it.
            expected_labels: image name to the label that it must get.
            counts_nodes: whether the server is asked what its nodes do in the window.

        Raises:
            LoadTestError: as `measure_window`; the client processes then have to be replaced.
        """
        load = replace(load, seed=load.seed + repeat)
        self.have_processes(min(load.client_processes, load.request_client))
        with Clients(load, self._images, expected_labels, self._pool) as clients:
            window = measure_window(
                variant,
                repeat,
                clients,
                load,
                server,
                self.gpus,
                self._progress,
                title,
                counts_nodes=counts_nodes,
            )
        return replace(
            window,
            clients=None if load.arrivals_per_s is not None else load.request_client,
            client_processes=load.client_processes,
        )

    def close(self) -> None:
        """Kill the client processes."""
        if self._pool is not None:
            self._pool.close()


class PlannedSeries(Series):
    """A series whose end is foreseen, and whose windows are each kept before the next one.

    Args:
        images: what clients send.
        client_processes: None for what fits each number of clients.
        progress: shows how it goes.
        plan: what will be measured.
        save: writes what was measured so far.
    """

    def __init__(
        self,
        images: Sequence[LoadImage],
        client_processes: int | None,
        progress: Progress,
        plan: Plan,
        save: Callable[[], None],
    ) -> None:
        super().__init__(images, client_processes, progress)
        self._plan = plan
        self._save = save
        self._step_s = time.monotonic()

    def begin(self, port: int, what: str, clients: Sequence[int]) -> None:
        """Say what is planned, and start the processes of the most clients.

        Raises:
            LoadTestError: the servers' port is taken.
        """
        require_free_port(HOST, port)
        self._progress.line(
            f"{self._plan.total} {what} planned, about {minutes(self._plan.remaining_s())} minutes"
        )
        self.have_processes(max(map(self.processes_of, clients)))

    def title(self, what: str) -> str:
        """Say what comes next, and how much follows it."""
        plan = self._plan
        left = f"[{plan.done + 1}/{plan.total}, {minutes(plan.remaining_s())} left]"
        self._progress.line(f"{left} {what}")
        return f"{left} {what}"

    def step_s(self) -> float:
        """Seconds since the last time that this was asked: what a step took."""
        began_s, self._step_s = self._step_s, time.monotonic()
        return self._step_s - began_s

    def keep(self, workload: WorkloadRun, window: Window) -> None:
        """Save a window. What it took includes the end of the server before it, and a start."""
        workload.windows.append(window)
        self._save()
        self._plan.measured(self.step_s())
