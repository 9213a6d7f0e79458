"""`peers`: this project's variants beside other ways to serve the same model.

For each workload every setting of every peer first answers all images, which must agree with the
first variant's answers, and then serves one short window: the setting with the most throughput is
kept. Those that are left take turns, each with a fresh server for its windows at all numbers of
clients, and then once more under an open loop of more than they can serve. What fails costs only
itself, and the report says why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.measure.contestants import (
    Contestant,
    OwnVariant,
    PeerSetting,
    QueueLimit,
    Running,
)
from loadtest.measure.null_model import NULL_MODEL, write_null_model
from loadtest.measure.peer_place import prepared_place
from loadtest.measure.peers_job import PeersJob, right_answers_per_s
from loadtest.measure.peers_settings import QUEUE_MS, PeersSettings, PeerWorkload
from loadtest.measure.plan import Plan
from loadtest.measure.series import PlannedSeries, interleaved
from loadtest.progress import Progress
from loadtest.records import machine
from loadtest.records.raw_files import RawWriter
from loadtest.records.run import TRIAL, Run, Window, new_run
from loadtest.servers.variants import Workload
from loadtest.settings import LoadSettings


class PeersComparison:
    """One run of `peers`.

    Args:
        settings: what to measure.
        command: the command line, for the record.
        writer: keeps what is measured, window by window.
        progress: shows how it goes.
    """

    def __init__(
        self, settings: PeersSettings, command: str, writer: RawWriter, progress: Progress
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._jobs: list[PeersJob] = []
        on_gpu = settings.on_gpu
        settings_of = [len(peer.tried(on_gpu=on_gpu)) for peer in settings.peers]
        tried = len(settings.variants) + sum(settings_of)
        rows = len(settings.variants) + len(settings.peers)
        trials = sum(count for count in settings_of if count > 1)
        each = settings.repeats * (len(settings.clients) + (1 if settings.overload else 0))
        self._plan = Plan(
            checks=len(settings.workloads) * tried,
            measurements=len(settings.workloads) * (trials + rows * each),
            window_s=settings.load.warmup_s + (settings.load.duration_s or 0.0),
        )
        self._series = PlannedSeries(
            settings.images, settings.client_processes, progress, self._plan, self._save
        )
        self._run = new_run(
            "peers",
            command,
            settings.recorded(),
            images=[image.as_record() for image in settings.images],
            complete=False,
            results={"failures": [], "kept": [], "notes": []},
        )

    def run(self) -> Run:
        """Measure all workloads.

        Raises:
            LoadTestError: this project's first variant fails, so that nothing can be compared. What
                was measured before is in the folder.
        """
        settings = self._settings
        with closing(self._series), tempfile.TemporaryDirectory(prefix="peers-") as folder:
            clients = [*settings.clients, settings.load.request_client]
            self._series.begin(settings.servers.port, "windows", clients)
            for workload in settings.workloads:
                job = PeersJob(workload, self._contestants(workload, Path(folder)))
                self._jobs.append(job)
                self._choose(job)
                self._closed_loops(job)
                if settings.overload:
                    self._overloads(job)
        self._run = replace(self._run, complete=True)
        self._save()
        return self._run

    def _save(self) -> None:
        self._run.workloads[:] = [job.result for job in self._jobs if job.result.windows]
        self._run.results["notes"] = [
            {"workload": job.workload.name, "variant": contestant.name, "note": note}
            for job in self._jobs
            for contestant in job.tried
            for note in contestant.notes
        ]
        if self._run.workloads:
            self._writer.save(self._run)

    def _contestants(self, workload: PeerWorkload, folder: Path) -> list[Contestant]:
        settings = self._settings
        options = replace(settings.servers, engine=workload.engine, precision=workload.precision)
        model = workload.model
        if model == NULL_MODEL:
            model = str(write_null_model(folder))
        served = Workload(workload.name, model)
        place = prepared_place(workload, served, options, settings, folder)
        return [
            *(OwnVariant(variant, served, options) for variant in settings.variants),
            *(
                PeerSetting(peer, setting, place)
                for peer in settings.peers
                for setting in peer.tried(on_gpu=settings.on_gpu)
            ),
        ]

    def _choose(self, job: PeersJob) -> None:
        """Compare all answers, and keep the best setting of each peer."""
        kept: list[Contestant] = []
        for _, group in groupby(job.contestants, key=lambda contestant: contestant.group):
            settings = [*group]
            rates: dict[str, float] = {}
            for contestant in settings:
                self._progress.line(f"{job.workload.name}: the answers of {contestant.name}")
                self._series.step_s()
                with self._costs_itself(job, contestant), contestant.serving(None) as running:
                    job.check(contestant, running, running.ask(self._settings.images))
                    rates[contestant.name] = 0.0
                    self._plan.checked(self._series.step_s())
                    if len(settings) > 1:
                        clients = self._settings.load.request_client
                        window = self._closed_loop(job, contestant, running, clients, TRIAL)
                        rates[contestant.name] = right_answers_per_s(window)
            if rates:
                best = max(rates, key=lambda name: rates[name])
                kept += [contestant for contestant in settings if contestant.name == best]
                self._run.results["kept"].append({"workload": job.workload.name, "variant": best})
            elif not kept:
                failure = self._run.results["failures"][-1]
                raise LoadTestError(f"nothing was timed: {failure['reason']}")
        job.contestants = kept

    def _closed_loops(self, job: PeersJob) -> None:
        for contestant, repeat in self._turns(job):
            clients = self._settings.clients
            with self._costs_itself(job, contestant), contestant.serving(None) as running:
                for count in clients if repeat % 2 else clients[::-1]:
                    self._closed_loop(job, contestant, running, count, repeat)

    def _overloads(self, job: PeersJob) -> None:
        """More than each can serve: a multiple of what it served at best."""
        for contestant, repeat in self._turns(job):
            if not (best := job.best_rate(contestant.name)):
                continue
            offered = self._settings.overload * best
            limit = QueueLimit(QUEUE_MS, max(1, round(best * QUEUE_MS / 1000)))
            processes = self._series.processes_of(max(self._settings.clients))
            load = replace(
                self._settings.load,
                request_client=processes,
                client_processes=processes,
                arrivals_per_s=offered,
                request_timeout_s=self._settings.deadline_ms / 1000,
            )
            what = f"{offered:.0f} arrivals a second"
            with self._costs_itself(job, contestant), contestant.serving(limit) as running:
                self._window(job, contestant, running, load, repeat, what)

    def _turns(self, job: PeersJob) -> Iterator[tuple[Contestant, int]]:
        """All that have not failed, forwards and backwards in turn."""
        for contestant, repeat in interleaved(job.contestants, self._settings.repeats):
            if contestant.name not in job.failed:
                yield contestant, repeat

    @contextmanager
    def _costs_itself(self, job: PeersJob, contestant: Contestant) -> Iterator[None]:
        """Note what goes wrong, with the reason, and go on without it."""
        try:
            yield
        except LoadTestError as error:
            reason = str(machine.without_paths(str(error)))
            self._progress.line(f"{contestant.name}: {reason}")
            job.failed.add(contestant.name)
            self._run.results["failures"].append(
                {"workload": job.workload.name, "variant": contestant.name, "reason": reason}
            )
            self._series.replace_processes()

    def _closed_loop(
        self, job: PeersJob, contestant: Contestant, running: Running, clients: int, repeat: int
    ) -> Window:
        load = self._series.closed_load(self._settings.load, clients)
        return self._window(job, contestant, running, load, repeat, f"clients: {clients}")

    def _window(
        self,
        job: PeersJob,
        contestant: Contestant,
        running: Running,
        load: LoadSettings,
        repeat: int,
        what: str,
    ) -> Window:
        name = contestant.name
        window = self._series.measure(
            name,
            repeat,
            replace(load, port=self._settings.servers.port, wire=contestant.wire),
            running.process,
            self._series.title(f"{job.workload.name} {name}, repeat {repeat}, {what}"),
            job.expected_labels,
        )
        self._series.keep(job.result, window)
        return window
