"""`capacity`: the highest rate of an open loop whose TP99 is within a limit.

A window with clients that wait says what the server can do at all. Windows of open loops follow,
each at the rate that tells most (`measurement.threshold`), until the rate is known well enough or
the time is over.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace

from loadtest.errors import LoadTestError
from loadtest.load.clients import fitting_generators
from loadtest.measure.capacity_settings import CapacitySettings
from loadtest.measure.series import Series
from loadtest.measure.single import RunningServer
from loadtest.measure.time_limit import TimeIsOverError, ends_by
from loadtest.progress import Progress, minutes
from loadtest.records import machine
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


class CapacitySearch:
    """One run of `capacity`.

    Args:
        settings: what to search.
        command: the command line, for the record.
        writer: keeps what is measured, window by window; None to keep nothing.
        progress: shows how it goes.
    """

    def __init__(
        self,
        settings: CapacitySettings,
        command: str,
        writer: RawWriter | None,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._command = command
        self._writer = writer
        self._progress = progress
        self._end_s = time.monotonic() + settings.budget_s
        self._series = Series(settings.images, settings.client_processes, progress)

    def run(self) -> Run:
        """Search; every window is in the folder as soon as it is measured, as a partial run's.

        Raises:
            LoadTestError: no server answers, it dies, or nothing is answered rightly.
        """
        settings, load = self._settings, self._settings.load
        self._server = server = RunningServer(load.host, load.port)
        self._progress.line(
            f"{server.title} at {load.host}:{load.port}: the highest rate with TP99 <= "
            f"{settings.slo_ms:g} ms, within {minutes(settings.budget_s)} minutes"
        )
        further = {"slo_ms": settings.slo_ms, "budget_s": settings.budget_s}
        self._run = server.new_run("capacity", load, settings.images, self._command, further)
        try:
            with closing(self._series), ends_by(self._end_s):
                self._search()
        except TimeIsOverError:
            # What was measured before tells as much as it can.
            if len(self._windows) < 2:
                raise
        return self._run

    @property
    def _windows(self) -> list[Window]:
        return self._run.workloads[0].windows

    def _search(self) -> None:
        """Measure until the rate is known, or there is no time for another window."""
        settings, load = self._settings, self._settings.load
        self._window(load, TRIAL, f"{load.title} that wait")
        closed = closed_rate_per_s(self._windows)
        if not closed:
            error = self._windows[0].records[0].error
            raise LoadTestError(f"nothing was answered rightly; the first error: {error}")
        timeout_s = max(_LEAST_TIMEOUT_S, _TIMEOUT_LIMITS * settings.slo_ms / 1000)
        while True:
            found = search_of(self._windows, settings.slo_ms)
            if found.is_within(RESOLUTION) or found.is_at_an_end():
                break
            if settings.tries is not None and len(self._windows) > settings.tries:
                break
            rate = float(f"{found.next_value():.4g}")
            wanted_s = max(load.duration_s or 0.0, _LEAST_REQUESTS / rate)
            open_load = replace(
                load,
                duration_s=min(_LONGEST_WINDOW_S, wanted_s),
                arrivals_per_s=rate,
                request_timeout_s=min(load.request_timeout_s, timeout_s),
            )
            left_s = self._end_s - time.monotonic()
            if left_s < _AROUND_S + load.warmup_s + (open_load.duration_s or 0.0):
                break
            cores = machine.usable_cores()
            processes = settings.client_processes or fitting_generators(rate, cores)
            open_load = replace(open_load, request_client=processes, client_processes=processes)
            self._window(open_load, len(self._windows), open_load.title)

    def _window(self, load: LoadSettings, number: int, what: str) -> None:
        title = f"[{minutes(self._end_s - time.monotonic())} left] {what}"
        name = self._server.identity.handler
        window = self._series.measure(name, number, load, self._server, title, {})
        self._windows.append(window)
        found_ms = tp99_ms(window)
        told = "some without a right answer" if math.isinf(found_ms) else f"TP99 {found_ms:.2f} ms"
        self._progress.line(f"{what}: {told}")
        if self._writer is not None:
            self._writer.save(replace(self._run, complete=False))
