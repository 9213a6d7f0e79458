"""`compare` and `sweep`: windows of every variant, after all have proved to agree.

Both measure blocks of windows, each with one server. In a comparison a block is one window; the
variants take turns, and all are checked first. In a sweep a block is a variant's windows at every
number of clients, the variants take turns, too, and one that fails costs only itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from loadtest.errors import LoadTestError
from loadtest.measure.comparison_settings import Block, ComparisonSettings
from loadtest.measure.job import Job
from loadtest.measure.plan import Plan, shortened
from loadtest.measure.series import PlannedSeries
from loadtest.measure.stages import measure_stages
from loadtest.measure.upper_bound import measure_part, measure_upper_bound
from loadtest.progress import Progress
from loadtest.records import machine
from loadtest.records.raw_files import RawWriter
from loadtest.records.run import Run, StageRun, Window, new_run
from loadtest.servers.process_controls import process_controls, with_processes
from loadtest.servers.programs import upper_bound_command
from loadtest.servers.servers import Servers, Serving
from loadtest.servers.variants import Variant, may_use_gpu
from loadtest.settings import ServerOptions

_BOUND_SLACK_S = 60.0
_LEAST_TIMEOUT_S = 10.0
# All batch sizes of a part together.
_PART_S = 4.0


class Comparison:
    """One run of `compare` or `sweep`.

    Args:
        settings: what to measure.
        command: the command line, for the record.
        writer: keeps what is measured, window by window.
        progress: shows how it goes.
    """

    def __init__(
        self, settings: ComparisonSettings, command: str, writer: RawWriter, progress: Progress
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._load = settings.load
        self._failures: list[str] = []
        workloads = len(settings.workloads)
        self._plan = Plan(
            checks=workloads * len(settings.served),
            measurements=workloads
            * sum(len(block.windows) for blocks in settings.rounds() for block in blocks),
            extras=workloads * (len(settings.parts) + len(settings.staged)),
            window_s=settings.load.warmup_s + (settings.load.duration_s or 0.0),
        )
        processes = settings if settings.is_sweep else settings.load
        self._series = PlannedSeries(
            settings.images, processes.client_processes, progress, self._plan, self._save
        )
        self._run = new_run(
            "sweep" if settings.is_sweep else "compare",
            command,
            {},
            images=[image.as_record() for image in settings.images],
            complete=False,
        )

    def run(self) -> Run:
        """Check and measure everything.

        Raises:
            LoadTestError: a server fails, variants disagree, or a window gives nothing. What was
                measured before is in the folder; in a sweep the other variants are, too.
        """
        settings = self._settings
        with closing(self._series), ExitStack() as stack:
            clients = settings.clients or [settings.load.request_client]
            self._series.begin(settings.servers.port, "measurements", clients)
            self._jobs = [
                Job(
                    workload,
                    settings,
                    stack.enter_context(Servers(workload, self._server_options(index))),
                )
                for index, workload in enumerate(settings.workloads)
            ]
            for job in self._jobs:
                if settings.keep_servers:
                    self._progress.line(f"{job.workload.name}: starting all servers")
                    job.servers.start(settings.served)
            if not settings.is_sweep:
                # All checks come first: hours of measurements must not end in a disagreement.
                for job in self._jobs:
                    self._check_all(job, settings.served)
                self._add_controls()
                for job in self._jobs:
                    self._record_all(job)
                self._fit_load()
            for job in self._jobs:
                self._measure_job(job)
                job.servers.stop()
        if not self._writer.has_saved:
            raise LoadTestError(
                self._failures[0] if self._failures else "the time was over before a window"
            )
        self._run = replace(self._run, complete=self._plan.done == self._plan.total)
        self._save()
        if self._failures:
            raise LoadTestError("; ".join(self._failures))
        return self._run

    def _server_options(self, index: int) -> ServerOptions:
        """The options of a workload's servers; those that are kept have ports of their own."""
        settings = self._settings
        before = index * settings.ports_per_workload if settings.keep_servers else 0
        return replace(settings.servers, port=settings.servers.port + before)

    def _fit_load(self) -> None:
        """Make windows as long as the time that is left allows."""
        limit = self._settings.time_limit
        self._load = limit.fitting_load(self._settings.load, self._plan.windows_left)
        if not self._run.settings:
            recorded = machine.without_paths(self._settings.recorded(self._load))
            self._run.settings.update(recorded)

    def _save(self) -> None:
        self._run.workloads[:] = [job.result for job in self._jobs if job.result is not None]
        self._writer.save(self._run)

    def _add_controls(self) -> None:
        """Name the pipeline's number of processes, which its server has told, and add its equals.

        Raises:
            LoadTestError: servers that are kept have another number for another workload.
        """
        settings = self._settings
        if not settings.adds_controls:
            return
        variants = [self._settled(variant) for variant in settings.variants]
        served = [variant for variant in variants if variant.handler is not None]
        controls = process_controls(served)
        added = [*controls.values()]
        if added:
            names = ", ".join(control.name for control in added)
            self._progress.line(f"added, to compare equal numbers of processes: {names}")
        if settings.fits_windows:
            self._load = shortened(self._load, len(settings.compared), len(added))
        self._settings = replace(
            settings,
            variants=[
                row
                for variant in variants
                for row in (variant, controls.get(variant.name))
                if row is not None
            ],
        )
        self._plan.add(
            checks=len(self._jobs) * len(added),
            measurements=len(self._jobs) * len(added) * settings.repeats,
        )
        for job in self._jobs:
            job.settings = self._settings
            if settings.keep_servers:
                job.servers.start(added)
            self._check_all(job, added)

    def _settled(self, variant: Variant) -> Variant:
        """The same with the number of processes that its servers have; the least of all jobs."""
        if variant.workers is not None:
            return variant
        counts = {job.identities[variant.name].workers or 1 for job in self._jobs}
        if len(counts) > 1 and self._settings.keep_servers:
            raise LoadTestError(
                f"{variant.name} has {' and '.join(map(str, sorted(counts)))} processes, which "
                "depends on the workload; without --keep_servers all can have as few"
            )
        settled = with_processes(variant, min(counts))
        for job in self._jobs:
            job.rename(variant.name, settled.name)
        return settled

    def _check_all(self, job: Job, variants: Sequence[Variant]) -> None:
        """Ask every variant about every image before anything is timed."""
        for variant in variants:
            self._progress.line(f"{job.workload.name}: checking the answers of {variant.name}")
            with job.servers.serving(variant) as serving:
                self._check(job, variant, serving)

    def _record_all(self, job: Job) -> None:
        """Record all rows, and that they agree."""
        for variant in self._settings.compared:
            job.add(variant)
        if job.agreement is not None:
            self._progress.line(
                f"{job.workload.name}: {', '.join(job.answers)} agree on {job.agreement.images} "
                f"images (scores differ by {job.agreement.largest_score_difference:.2g} at most)"
            )

    def _check(self, job: Job, variant: Variant, serving: Serving) -> None:
        """The variant runs the model of those before it and gives their answers."""
        started_s = time.monotonic()
        if job.check(variant, serving):
            self._plan.checked(time.monotonic() - started_s)

    def _measure_job(self, job: Job) -> None:
        self._series.step_s()
        failed: set[str] = set()
        for position, blocks in enumerate(self._settings.rounds()):
            windows = sum(len(block.windows) for block in blocks)
            if blocks[0].variant.name in failed:
                self._plan.left_out(windows)
                continue
            if self._leaves_out(job, blocks, is_first=position == 0):
                self._plan.left_out(windows)
                continue
            if self._settings.is_sweep:
                self._fit_load()
            for block in blocks:
                measured = self._plan.windows_left
                try:
                    self._measure(job, block)
                except LoadTestError as error:
                    if not self._settings.is_sweep:
                        raise
                    self._series.replace_processes()
                    self._progress.line(f"{block.variant.name}: {error}")
                    self._failures.append(f"{block.variant.name}: {error}")
                    failed.add(block.variant.name)
                    self._plan.left_out(windows - (measured - self._plan.windows_left))
        self._measure_stages(job)
        self._measure_parts(job)

    def _leaves_out(self, job: Job, blocks: Sequence[Block], *, is_first: bool) -> bool:
        """Whether there is no time for a round.

        A comparison has whole rounds, so that its rows can be compared, and always the first.
        """
        left_s = self._settings.time_limit.windows_left_s()
        if self._settings.is_sweep:
            what, is_late = blocks[0].variant.name, left_s < 0
        else:
            what = f"repeat {blocks[0].windows[0][1]}"
            is_late = not is_first and left_s < self._plan.measurement_s() * len(blocks)
        if is_late:
            self._progress.line(f"{job.workload.name}: no time for {what}")
        return is_late

    def _measure(self, job: Job, block: Block) -> None:
        """Measure a block's windows, and keep each on disk before the next one starts."""
        variant = block.variant
        if variant.handler is None:
            for _, repeat in block.windows:
                self._series.title(
                    f"{job.workload.name} {variant.name}, "
                    f"repeat {repeat} of {self._settings.repeats}"
                )
                command, timeout_s = self._bound_command(variant, job), self._bound_timeout_s()
                gpus = self._series.gpus
                window = measure_upper_bound(command, variant, repeat, gpus, timeout_s)
                self._series.keep(job.measured, window)
            return
        with job.servers.serving(variant) as serving:
            self._check(job, variant, serving)
            job.add(variant)
            for clients, repeat in block.windows:
                if self._settings.is_sweep and self._settings.time_limit.windows_left_s() < 0:
                    self._progress.line(f"{variant.name}: no time for {clients} clients")
                    continue
                window = self._window(variant, job, serving, clients, repeat)
                self._series.keep(job.measured, window)

    def _window(
        self, variant: Variant, job: Job, serving: Serving, clients: int | None, repeat: int
    ) -> Window:
        settings = self._settings
        load = replace(self._load, port=serving.port)
        what = f"{job.workload.name} {variant.name}, repeat {repeat} of {settings.repeats}"
        if clients is not None:
            load = self._series.closed_load(load, clients)
            what += f", clients: {clients}"
        window = self._series.measure(
            variant.name,
            repeat,
            load,
            serving.process,
            self._series.title(what),
            job.expected_labels,
            counts_nodes=True,
        )
        # The settings say it for all.
        return window if clients else replace(window, clients=None, client_processes=None)

    def _extras(self, variants: Sequence[Variant], what: str) -> Iterator[Variant]:
        """The variants for which there is time, each with a title, timed until the next one."""
        for variant in variants:
            if self._settings.time_limit.left_s() < self._plan.extra_s():
                self._progress.line(f"{variant.name}: no time for {what}")
                continue
            started_s = time.monotonic()
            yield variant
            self._save()
            self._plan.extra_measured(time.monotonic() - started_s)

    def _measure_parts(self, job: Job) -> None:
        for variant in self._extras(self._settings.parts, "it"):
            self._series.title(f"{job.workload.name} {variant.name}")
            command = self._bound_command(variant, job)
            part = measure_part(command, variant, self._series.gpus, self._bound_timeout_s())
            if part.error:
                self._progress.line(f"{variant.name}: {part.error}")
            job.measured.parts.append(part)

    def _measure_stages(self, job: Job) -> None:
        """One window a server; its profiling costs throughput, so it must not be timed."""
        settings = self._settings
        if not settings.staged:
            return
        # Those that profile get servers of their own, so that none of these is ever timed.
        with Servers(job.workload, self._server_options(len(settings.workloads))) as servers:
            if settings.keep_servers and settings.time_limit.left_s() >= self._plan.extra_s():
                profiled = [variant.with_profiled_stages() for variant in settings.staged]
                servers.start([v for v in profiled if v not in settings.staged])
            for plain in self._extras(settings.staged, "its stages"):
                self._series.title(f"{job.workload.name} {plain.name}, stages of a request")
                variant = plain.with_profiled_stages()
                of_variant = job.servers if variant == plain else servers
                arguments = [*variant.server_args[len(plain.server_args) :]]
                job.measured.stages.append(self._stages(variant, arguments, of_variant, job))
            servers.stop()

    def _stages(
        self, variant: Variant, arguments: list[str], servers: Servers, job: Job
    ) -> StageRun:
        settings = self._settings
        requests, error = [], ""
        try:
            with servers.serving(variant) as serving:
                load = replace(self._load, port=serving.port, duration_s=settings.stages_s)
                requests = measure_stages(load, settings.images, job.expected_labels)
        except LoadTestError as failure:
            # The comparison is complete without it.
            error = str(failure)
            self._progress.line(f"{variant.name}: {error}")
        return StageRun(variant.name, settings.load.request_client, arguments, requests, error)

    def _bound_command(self, variant: Variant, job: Job) -> list[str]:
        duration_s = self._load.duration_s or 0.0
        return upper_bound_command(
            variant,
            job.workload,
            self._settings.servers,
            job.measured.engine,
            self._settings.images[0].path.parent,
            min(duration_s, _PART_S) if variant.is_part else duration_s,
            with_gpu=may_use_gpu(job.measured.engine, has_gpu=bool(self._series.gpus.names)),
        )

    def _bound_timeout_s(self) -> float:
        window_s = self._load.duration_s or 0.0
        timeout_s = self._settings.servers.ready_timeout_s + 10 * window_s + _BOUND_SLACK_S
        return min(timeout_s, max(_LEAST_TIMEOUT_S, self._settings.time_limit.left_s()))
