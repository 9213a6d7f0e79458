"""`capacity`: the highest rate of an open loop whose TP99 is within a limit.

A window with clients that wait says what the server can do at all. Windows of open loops follow,
each at the rate that tells most (`measurement.threshold`), until the rate is known well enough or
the time is over.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import replace

from loadtest.errors import LoadTestError
from loadtest.load.clients import ClientPool, Clients, fitting_generators
from loadtest.measure.capacity_settings import CapacitySettings
from loadtest.measure.single import RunningServer
from loadtest.measure.time_limit import TimeIsOverError, ends_by
from loadtest.measure.window import measure_window
from loadtest.progress import Progress, minutes
from loadtest.records import machine
from loadtest.records.probe import Gpus
from loadtest.records.raw_files import RawWriter
from loadtest.records.run import TRIAL, Run, Window
from loadtest.records.service_level import (
    RESOLUTION,
    closed_rate_per_s,
    search_of,
    tp99_ms,
)
from loadtest.settings import LoadSettings

# A TP99 of fewer requests is their maximum, or nearly so.
_LEAST_REQUESTS = 100
_LONGEST_WINDOW_S = 10.0
# What starting and collecting take around a window.
_AROUND_S = 1.0
# A request that takes longer does not hold the limit, and need not be waited for.
_LEAST_TIMEOUT_S = 2.0
_TIMEOUT_LIMITS = 10


def measure_capacity(
    settings: CapacitySettings, command: str, writer: RawWriter | None, progress: Progress
) -> Run:
    """Search; every window is in the folder as soon as it is measured, as part of a partial run.

    Raises:
        LoadTestError: no server answers, it dies, or nothing is answered rightly.
    """
    end_s = time.monotonic() + settings.budget_s
    load = settings.load
    server = RunningServer(load.host, load.port)
    progress.line(
        f"{server.title} at {load.host}:{load.port}: the highest rate with TP99 <= "
        f"{settings.slo_ms:g} ms, within {minutes(settings.budget_s)} minutes"
    )
    further = {"slo_ms": settings.slo_ms, "budget_s": settings.budget_s}
    run = server.new_run("capacity", load, settings.images, command, further)
    with ExitStack() as stack:
        search = _Search(settings, server, run, writer, progress, stack, end_s)
        try:
            with ends_by(end_s):
                search.run_windows()
        except TimeIsOverError:
            # What was measured before tells as much as it can.
            if len(search.windows) < 2:
                raise
    return run


class _Search:
    def __init__(
        self,
        settings: CapacitySettings,
        server: RunningServer,
        run: Run,
        writer: RawWriter | None,
        progress: Progress,
        stack: ExitStack,
        end_s: float,
    ) -> None:
        self._settings = settings
        self._server = server
        self._run = run
        self._writer = writer
        self._progress = progress
        self._stack = stack
        self._end_s = end_s
        self._gpus = Gpus()
        self._pool: ClientPool | None = None

    @property
    def windows(self) -> list[Window]:
        """Those that were measured."""
        return self._run.workloads[0].windows

    def run_windows(self) -> None:
        """Measure until the rate is known, or there is no time for another window."""
        settings, load = self._settings, self._settings.load
        self._window(load, TRIAL, f"{load.title} that wait")
        closed = closed_rate_per_s(self.windows)
        if not closed:
            raise LoadTestError(
                f"nothing was answered rightly; the first error: {self.windows[0].records[0].error}"
            )
        timeout_s = max(_LEAST_TIMEOUT_S, _TIMEOUT_LIMITS * settings.slo_ms / 1000)
        while True:
            found = search_of(self.windows, settings.slo_ms)
            if found.is_within(RESOLUTION) or found.is_at_an_end():
                break
            if settings.tries is not None and len(self.windows) > settings.tries:
                break
            rate = float(f"{found.next_value():.4g}")
            wanted_s = max(load.duration_s or 0.0, _LEAST_REQUESTS / rate)
            open_load = replace(
                load,
                duration_s=min(_LONGEST_WINDOW_S, wanted_s),
                arrivals_per_s=rate,
                request_timeout_s=min(load.request_timeout_s, timeout_s),
                seed=load.seed + len(self.windows),
            )
            left_s = self._end_s - time.monotonic()
            if left_s < _AROUND_S + load.warmup_s + (open_load.duration_s or 0.0):
                break
            cores = machine.usable_cores()
            processes = settings.client_processes or fitting_generators(rate, cores)
            open_load = replace(open_load, request_client=processes, client_processes=processes)
            self._window(open_load, len(self.windows), open_load.title)

    def _window(self, load: LoadSettings, number: int, what: str) -> None:
        title = f"[{minutes(self._end_s - time.monotonic())} left] {what}"
        if self._pool is None or len(self._pool.processes) < load.client_processes:
            self._pool = self._stack.enter_context(ClientPool(load.client_processes))
        server = self._server
        with Clients(load, self._settings.images, {}, self._pool) as clients:
            window = measure_window(
                server.identity.handler,
                number,
                clients,
                load,
                server.pid,
                self._gpus,
                self._progress,
                title,
                server.require_alive,
            )
        is_open = load.arrivals_per_s is not None
        window = replace(
            window,
            clients=None if is_open else load.request_client,
            client_processes=load.client_processes,
        )
        self.windows.append(window)
        found_ms = tp99_ms(window)
        told = "some without a right answer" if math.isinf(found_ms) else f"TP99 {found_ms:.2f} ms"
        self._progress.line(f"{what}: {told}")
        if self._writer is not None:
            self._writer.save(replace(self._run, complete=False))
