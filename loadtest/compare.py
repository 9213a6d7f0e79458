"""`compare`: every variant on every workload, interleaved, after all have proved to agree."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from loadtest import machine
from loadtest.agreement import Agreement, Answer, ask, check_same_model, compare_answers
from loadtest.clients import ClientPool, Clients, LoadSettings
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.images import LoadImage
from loadtest.in_process import measure_limit, measure_part
from loadtest.measured_run import MeasuredRun, Repeat, StageRun, VariantRun, WorkloadRun
from loadtest.measurement import measure
from loadtest.plan import UNLIMITED, Plan, TimeLimit
from loadtest.progress import Progress, minutes
from loadtest.raw_files import RawWriter
from loadtest.rpc import ServerIdentity
from loadtest.server_process import require_free_port
from loadtest.servers import Servers
from loadtest.stages import measure_stages
from loadtest.variants import (
    CONTROL,
    HOST,
    ServerOptions,
    Variant,
    Workload,
    interleaved,
    limit_command,
)

_LIMIT_SLACK_S = 60.0
_LEAST_TIMEOUT_S = 10.0
# All batch sizes of a part together.
_PART_S = 4.0


@dataclass(frozen=True)
class CompareSettings:
    """What `compare` measures.

    Attributes:
        workloads: models.
        variants: table rows, and parts of the service to measure alone.
        servers: how the variants run.
        load: how they are loaded.
        repeats: windows per workload and variant.
        score_tolerance: largest difference of two variants' scores for one image.
        decoder_tolerance: the same where one of them decodes on the GPU.
        images: what to send.
        stages_s: length of the window, one a server, that tells where a request's time goes; 0
            for none.
        keep_servers: True starts every server once, all at the same time, instead of a fresh one
            for every window.
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
    stages_s: float
    keep_servers: bool = False
    time_limit: TimeLimit = UNLIMITED

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

        The control's go where the baseline's do, without the wait for the lock.
        """
        return [variant for variant in self.served if variant.name != CONTROL]

    @property
    def parts(self) -> list[Variant]:
        """What is measured alone, once."""
        return [variant for variant in self.variants if variant.is_part]


@dataclass(frozen=True)
class _Checked:
    """A workload whose variants agree, its servers, and what was measured of it so far."""

    workload: Workload
    servers: Servers
    identities: Mapping[str, ServerIdentity]
    agreement: Agreement
    result: WorkloadRun


class Comparison:
    """One run of `compare`.

    Args:
        settings: what to measure.
        command: the command line, for the record.
        writer: keeps what is measured, window by window.
        progress: shows how it goes.
    """

    def __init__(
        self, settings: CompareSettings, command: str, writer: RawWriter, progress: Progress
    ) -> None:
        self._settings = settings
        self._command = command
        self._writer = writer
        self._progress = progress
        self._gpus = GpuMonitor()
        self._load = settings.load
        workloads = len(settings.workloads)
        self._plan = Plan(
            checks=workloads * len(settings.served),
            measurements=workloads * len(settings.compared) * settings.repeats,
            extras=workloads
            * (len(settings.parts) + (len(settings.staged) if settings.stages_s else 0)),
            window_s=settings.load.warmup_s + (settings.load.duration_s or 0.0),
        )

    def run(self) -> MeasuredRun:
        """Check and measure everything.

        Raises:
            LoadTestError: a server fails, variants disagree, or a window gives nothing. What was
                measured before is in the folder.
        """
        settings = self._settings
        require_free_port(HOST, settings.servers.port)
        started, source = machine.utc_now(), machine.describe_source()
        self._progress.line(
            f"{self._plan.total} measurements planned, about "
            f"{minutes(self._plan.remaining_s())} minutes"
        )
        with ExitStack() as stack:
            pool = stack.enter_context(ClientPool(settings.load.client_processes))
            # All checks come first: hours of measurements must not end in a disagreement.
            checked = [
                self._check(workload, self._options_of(index), stack)
                for index, workload in enumerate(settings.workloads)
            ]
            windows = self._plan.windows_left
            self._load = settings.time_limit.fitting_load(settings.load, windows)
            run = MeasuredRun(
                kind="compare",
                command=self._command,
                started=started,
                source=source,
                machine=machine.describe_machine(self._gpus.names),
                versions=machine.client_versions(),
                settings=self._recorded_settings(),
                images=[image.as_record() for image in settings.images],
                workloads=[entry.result for entry in checked],
                complete=False,
            )
            self._writer.save(run)
            for entry in checked:
                self._measure(entry, pool, run)
                entry.servers.stop()
        finished = replace(run, complete=self._plan.done == self._plan.total)
        self._writer.save(finished)
        return finished

    def _recorded_settings(self) -> dict[str, object]:
        settings = self._settings
        recorded = {
            **asdict(self._load),
            **asdict(settings.servers),
            "repeats": settings.repeats,
            "keep_servers": settings.keep_servers,
            "variants": [variant.name for variant in settings.variants],
            "workloads": [workload.model for workload in settings.workloads],
        }
        return dict(machine.without_paths(recorded))

    def _options_of(self, index: int) -> ServerOptions:
        """The options of a workload's servers; those that are kept have ports of their own."""
        settings = self._settings
        before = index * len(settings.served) if settings.keep_servers else 0
        return replace(settings.servers, port=settings.servers.port + before)

    def _check(self, workload: Workload, options: ServerOptions, stack: ExitStack) -> _Checked:
        """Ask every variant about every image before anything is timed."""
        settings = self._settings
        servers = stack.enter_context(Servers(workload, options))
        if settings.keep_servers:
            self._progress.line(f"{workload.name}: starting all servers")
            servers.start(settings.served)
        identities: dict[str, ServerIdentity] = {}
        answers: dict[str, Mapping[str, Answer]] = {}
        for variant in settings.served:
            self._progress.line(f"{workload.name}: checking the answers of {variant.name}")
            started_s = time.monotonic()
            with servers.serving(variant) as serving:
                identities[variant.name] = serving.identity
                check_same_model(identities)
                answers[variant.name] = ask(settings.images, serving.port)
            self._plan.checked(time.monotonic() - started_s)
        first = settings.served[0].decodes_on_gpu
        agreement = compare_answers(
            answers,
            settings.score_tolerance,
            {variant.name for variant in settings.served if variant.decodes_on_gpu != first},
            settings.decoder_tolerance,
        )
        self._progress.line(
            f"{workload.name}: {', '.join(answers)} agree on {agreement.images} images "
            f"(scores differ by {agreement.largest_score_difference:.2g} at most)"
        )
        identity = next(iter(identities.values()))
        result = WorkloadRun(
            name=workload.name,
            model=machine.without_paths(identity.model),
            model_sha256=identity.model_sha256,
            engine=identity.engine,
            precision=identity.precision,
            agreement=agreement.as_record(),
            variants=[
                recorded_variant(variant, identities.get(variant.name))
                for variant in settings.compared
            ],
            repeats=[],
        )
        return _Checked(workload, servers, identities, agreement, result)

    def _measure(self, entry: _Checked, pool: ClientPool, run: MeasuredRun) -> None:
        settings = self._settings
        for number, variant in interleaved(settings.compared, settings.repeats):
            # Whole rounds, so that the rows can be compared; the first is never left out.
            starts_round = number > 1 and len(entry.result.repeats) % len(settings.compared) == 0
            round_s = self._plan.measurement_s() * len(settings.compared)
            if starts_round and settings.time_limit.windows_left_s() < round_s:
                self._progress.line(f"{entry.workload.name}: no time for repeat {number}")
                break
            started_s = time.monotonic()
            title = self._title(entry, f"{variant.name}, repeat {number} of {settings.repeats}")
            if variant.handler is None:
                repeat = measure_limit(
                    *self._limit(variant, entry), number, self._gpus, self._limit_timeout_s()
                )
            else:
                repeat = self._measure_server(variant, entry, number, pool, title)
            entry.result.repeats.append(repeat)
            self._writer.save(run)
            self._plan.measured(time.monotonic() - started_s)
        self._measure_stages(entry, run)
        for variant in settings.parts:
            if settings.time_limit.left_s() < self._plan.extra_s():
                self._progress.line(f"{entry.workload.name}: no time for {variant.name}")
                continue
            started_s = time.monotonic()
            self._title(entry, variant.name)
            command, _ = self._limit(variant, entry)
            part = measure_part(command, variant, self._gpus, self._limit_timeout_s())
            if part.error:
                self._progress.line(f"{variant.name}: {part.error}")
            entry.result.parts.append(part)
            self._writer.save(run)
            self._plan.extra_measured(time.monotonic() - started_s)

    def _title(self, entry: _Checked, what: str) -> str:
        title = (
            f"[{self._plan.done + 1}/{self._plan.total}, "
            f"{minutes(self._plan.remaining_s())} left] {entry.workload.name} {what}"
        )
        self._progress.line(title)
        return title

    def _measure_server(
        self, variant: Variant, entry: _Checked, number: int, pool: ClientPool, title: str
    ) -> Repeat:
        settings = self._settings
        with entry.servers.serving(variant) as serving:
            expected = entry.identities[variant.name]
            check_same_model(
                {variant.name: expected, f"{variant.name} started again": serving.identity}
            )
            load = replace(
                self._load,
                port=serving.port,
                # Every repeat has its own order of images, the same one for all variants.
                seed=self._load.seed + number,
            )
            with Clients(load, settings.images, entry.agreement.expected_labels, pool) as clients:
                window = measure(
                    clients,
                    load,
                    serving.process.pid,
                    self._gpus,
                    self._progress,
                    title,
                    serving.process.require_alive,
                )
        return window.as_repeat(variant.name, number)

    def _measure_stages(self, entry: _Checked, run: MeasuredRun) -> None:
        """One window a server; its profiling costs throughput, so that no other may be timed."""
        settings = self._settings
        if not settings.stages_s:
            return
        profiled = [variant.with_profiled_stages() for variant in settings.staged]
        # Never the servers that are kept: those are the ones that are timed.
        with Servers(entry.workload, self._options_of(len(settings.workloads))) as servers:
            if settings.keep_servers and settings.time_limit.left_s() >= self._plan.extra_s():
                servers.start(profiled)
            for variant, plain in zip(profiled, settings.staged, strict=True):
                if settings.time_limit.left_s() < self._plan.extra_s():
                    self._progress.line(f"{variant.name}: no time for its stages")
                    continue
                started_s = time.monotonic()
                self._title(entry, f"{variant.name}, stages of a request")
                arguments = [*variant.server_args[len(plain.server_args) :]]
                entry.result.stages.append(self._staged(variant, arguments, servers, entry))
                self._writer.save(run)
                self._plan.extra_measured(time.monotonic() - started_s)
            servers.stop()

    def _staged(
        self, variant: Variant, arguments: list[str], servers: Servers, entry: _Checked
    ) -> StageRun:
        settings = self._settings
        requests, error = [], ""
        try:
            with servers.serving(variant) as serving:
                load = replace(self._load, port=serving.port, duration_s=settings.stages_s)
                requests = measure_stages(load, settings.images, entry.agreement.expected_labels)
        except LoadTestError as failure:
            # It stands beside the comparison, which is worth as much without it.
            error = str(failure)
            self._progress.line(f"{variant.name}: {error}")
        return StageRun(variant.name, settings.load.request_client, arguments, requests, error)

    def _limit(self, variant: Variant, entry: _Checked) -> tuple[list[str], Variant]:
        settings = self._settings
        duration_s = self._load.duration_s
        assert duration_s is not None  # noqa: S101 (compare has no --total_number)
        if variant.is_part:
            duration_s = min(duration_s, _PART_S)
        command = limit_command(
            variant,
            entry.workload,
            settings.servers,
            entry.result.engine,
            settings.images[0].path.parent,
            duration_s,
            with_gpu=bool(self._gpus.names),
        )
        return command, variant

    def _limit_timeout_s(self) -> float:
        window_s = self._load.duration_s or 0.0
        timeout_s = self._settings.servers.ready_timeout_s + 10 * window_s + _LIMIT_SLACK_S
        return min(timeout_s, max(_LEAST_TIMEOUT_S, self._settings.time_limit.left_s()))


def recorded_variant(variant: Variant, identity: ServerIdentity | None) -> VariantRun:
    """What result files say of a variant and of the server that ran it."""
    record = None if identity is None else dict(machine.without_paths(identity.as_record()))
    return VariantRun(variant.name, variant.description, record)
