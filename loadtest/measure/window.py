"""One measured window: warm-up, load, samples, and the requests that completed within it."""

from __future__ import annotations

import time
from typing import Protocol

from loadtest.errors import LoadTestError, NoResultError
from loadtest.load.clients import Clients
from loadtest.measure.node_counts import node_counts
from loadtest.measure.sampling import Sampler
from loadtest.progress import Progress
from loadtest.records.machine import without_paths
from loadtest.records.node_counts import as_details, growth
from loadtest.records.probe import Gpus, Probe
from loadtest.records.run import CLIENTS, Window
from loadtest.settings import LoadSettings

# A count-bound window has no planned end; this one only keeps a stuck server from holding it.
_LONGEST_WINDOW_S = 24 * 3600.0


class ServerUnderLoad(Protocol):
    """The server that a load is put on."""

    @property
    def pid(self) -> int | None:
        """Root of its process tree; None where that cannot be sampled."""

    def require_alive(self) -> None:
        """Raise LoadTestError if it is known to have ended."""


def measure_window(
    variant: str,
    repeat: int,
    clients: Clients,
    load: LoadSettings,
    server: ServerUnderLoad,
    gpus: Gpus,
    progress: Progress,
    title: str,
    *,
    counts_nodes: bool = False,
    tells_clients: bool = False,
) -> Window:
    """Put the load on, discard the warm-up, and measure one window.

    All client processes share the window: its start and end are times on the machine's monotonic
    clock, and a request belongs to it if its reply arrived between them, of an open loop if it was
    to be sent between them. With `total_number` it ends with the reply to that request.

    Args:
        variant: what is measured.
        repeat: its number from 1.
        clients: made from the same load, not started yet.
        load: the load.
        server: what is under load; looked at five times a second.
        gpus: the GPUs to sample.
        progress: shows how it goes.
        title: what the progress line calls it.
        counts_nodes: whether the server is asked what its nodes do in the window. It is asked just
            before its start and just after its end, so that a batch more or less may be counted.
        tells_clients: whether the window's details say what each client process did. Where one was
            lost, they do, and the window ends then.

    Raises:
        LoadTestError: a client ended, the server stopped answering, or nothing completed.
        NoResultError: every worker was lost.
    """
    clients.start()

    def warm_up() -> None:
        server.require_alive()
        progress.update(f"warm-up: {clients.live}; {title}")

    def show() -> None:
        server.require_alive()
        if load.total_number is not None:
            share = clients.completed_in_window / load.total_number
        else:
            share = (time.perf_counter() - start_s) / length_s
        failed = f", {clients.failed} failed" if clients.failed else ""
        # A narrow terminal cuts the end off.
        progress.update(f"{clients.live}{failed}; {title}", share)

    clients.wait(time.perf_counter() + load.warmup_s, warm_up)
    before = node_counts(load.host, load.port) if counts_nodes else {}
    with Sampler(Probe(server.pid, clients.pids, gpus)) as sampler:
        start_s = sampler.sample().at_s
        clients.open_window(start_s)
        # Reports lag behind, so a count-bound window waits a little too long; the records decide
        # below where it ends.
        length_s = _LONGEST_WINDOW_S if load.duration_s is None else load.duration_s
        clients.wait(start_s + length_s, show, load.total_number)
        end_s = sampler.sample().at_s
    after = node_counts(load.host, load.port) if counts_nodes else {}
    records = clients.stop(start_s, end_s)
    length_s = end_s - start_s
    if load.total_number is not None and not clients.lost:
        if len(records) < load.total_number:
            raise LoadTestError(f"only {len(records)} of {load.total_number} requests completed")
        records = records[: load.total_number]
        length_s = records[-1].completed_s
    if not records and clients.lost:
        (process, reason), *_ = clients.lost.items()
        raise NoResultError(f"{process.title} {reason}, and no other has a request in the window")
    if not records:
        raise LoadTestError(
            f"no request completed within {length_s:.1f} s; choose a longer --duration_s"
        )
    is_open = load.arrivals_per_s is not None
    facts = without_paths(clients.facts(start_s, end_s))
    told = {CLIENTS: facts} if tells_clients or clients.lost else {}
    return Window(
        variant,
        repeat,
        length_s,
        sampler.samples(start_s),
        records,
        images_per_s=clients.right_images / length_s if is_open else None,
        details={**as_details(growth(before, after)), **told},
        offered_per_s=load.arrivals_per_s,
    )
