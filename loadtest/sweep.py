"""`sweep`: throughput and latency of every variant over a growing number of clients."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace

from loadtest import machine
from loadtest.agreement import Agreement, Answer, ask, check_same_model, compare_answers
from loadtest.clients import ClientPool, Clients, LoadSettings, fitting_client_processes
from loadtest.compare import recorded_variant
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.images import LoadImage
from loadtest.measured_run import MeasuredRun, Repeat, WorkloadRun
from loadtest.measurement import measure
from loadtest.plan import UNLIMITED, TimeLimit
from loadtest.progress import Progress
from loadtest.raw_files import RawWriter
from loadtest.rpc import ServerIdentity
from loadtest.server_process import require_free_port
from loadtest.servers import Servers, Serving
from loadtest.variants import HOST, ServerOptions, Variant, Workload


@dataclass(frozen=True)
class SweepSettings:
    """What `sweep` measures.

    Attributes:
        workload: the model.
        variants: lines of the plot; all are servers.
        servers: how the variants run.
        load: how they are loaded; its number of clients is the largest of `clients`.
        clients: numbers of closed-loop clients, in the order of the first repeat.
        client_processes: processes that they share; None for what fits each number.
        repeats: windows per variant and number of clients.
        score_tolerance: largest difference of two variants' scores for one image.
        decoder_tolerance: the same where one of them decodes on the GPU.
        images: what to send.
        tp99_limit_ms: the report names the most throughput within it.
        keep_servers: True starts all servers at the same time and keeps them.
        time_limit: when to measure nothing more.
    """

    workload: Workload
    variants: Sequence[Variant]
    servers: ServerOptions
    load: LoadSettings
    clients: Sequence[int]
    client_processes: int | None
    repeats: int
    score_tolerance: float
    decoder_tolerance: float
    images: Sequence[LoadImage]
    tp99_limit_ms: float
    keep_servers: bool = False
    time_limit: TimeLimit = UNLIMITED

    def processes_for(self, clients: int, *, with_gpu: bool) -> int:
        """Client processes for so many clients."""
        if self.client_processes is not None:
            return min(self.client_processes, clients)
        return fitting_client_processes(clients, machine.usable_cores(), with_gpu=with_gpu)


@dataclass
class _Found:
    """What the variants so far have said of themselves and of the images."""

    identities: dict[str, ServerIdentity] = field(default_factory=dict)
    answers: dict[str, Mapping[str, Answer]] = field(default_factory=dict)


class Sweep:
    """One run of `sweep`.

    Args:
        settings: what to measure.
        command: the command line, for the record.
        writer: keeps what is measured, window by window.
        progress: shows how it goes.
    """

    def __init__(
        self, settings: SweepSettings, command: str, writer: RawWriter, progress: Progress
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._progress = progress
        self._gpus = GpuMonitor()
        self._found = _Found()
        self._load = settings.load
        self._run = MeasuredRun(
            kind="sweep",
            command=command,
            started=machine.utc_now(),
            source=machine.describe_source(),
            machine=machine.describe_machine(self._gpus.names),
            versions=machine.client_versions(),
            settings={},
            images=[image.as_record() for image in settings.images],
            workloads=[],
            complete=False,
        )

    def run(self) -> MeasuredRun:
        """Check and measure every variant.

        Raises:
            LoadTestError: at least one variant failed; the others are measured and written.
        """
        settings = self._settings
        require_free_port(HOST, settings.servers.port)
        failures = []
        with Servers(settings.workload, settings.servers) as servers:
            if settings.keep_servers:
                self._progress.line("starting all servers")
                servers.start(settings.variants)
            for position, variant in enumerate(settings.variants):
                if settings.time_limit.windows_left_s() < 0:
                    self._progress.line(f"no time for {variant.name}")
                    continue
                try:
                    self._measure_variant(variant, len(settings.variants) - position, servers)
                except LoadTestError as error:
                    self._progress.line(f"{variant.name}: {error}")
                    failures.append(f"{variant.name}: {error}")
            servers.stop()
        if not self._run.workloads:
            raise LoadTestError(failures[0] if failures else "the time was over before a window")
        windows = len(settings.variants) * len(settings.clients) * settings.repeats
        is_whole = len(self._run.workloads[0].repeats) == windows
        finished = replace(self._run, complete=is_whole)
        self._writer.save(finished)
        if failures:
            raise LoadTestError("; ".join(failures))
        return finished

    def _measure_variant(self, variant: Variant, variants_left: int, servers: Servers) -> None:
        settings = self._settings
        with ExitStack() as stack:
            most = max(map(self._processes, settings.clients))
            pool = stack.enter_context(ClientPool(most))
            serving = stack.enter_context(servers.serving(variant))
            agreement = self._check(variant, serving)
            windows = len(settings.clients) * settings.repeats
            self._load = settings.time_limit.fitting_load(settings.load, windows * variants_left)
            self._add(variant, serving.identity, agreement)
            for number in range(1, settings.repeats + 1):
                # Forwards and backwards in turn, so that a drift favours no number of clients.
                for clients in settings.clients[:: 1 if number % 2 else -1]:
                    if settings.time_limit.windows_left_s() < 0:
                        self._progress.line(f"{variant.name}: no time for {clients} clients")
                        continue
                    repeat = self._window(variant, serving, clients, number, agreement, pool)
                    self._run.workloads[0].repeats.append(repeat)
                    self._writer.save(self._run)

    def _check(self, variant: Variant, serving: Serving) -> Agreement:
        """The variant runs the model of those before it and gives their answers."""
        settings, found = self._settings, self._found
        identities = {**found.identities, variant.name: serving.identity}
        check_same_model(identities)
        answers = {**found.answers, variant.name: ask(settings.images, serving.port)}
        first = settings.variants[0].decodes_on_gpu
        agreement = compare_answers(
            answers,
            settings.score_tolerance,
            {other.name for other in settings.variants if other.decodes_on_gpu != first},
            settings.decoder_tolerance,
        )
        found.identities, found.answers = identities, answers
        return agreement

    def _add(self, variant: Variant, identity: ServerIdentity, agreement: Agreement) -> None:
        """Make room for a variant that is about to be measured."""
        if not self._run.workloads:
            result = WorkloadRun(
                name=self._settings.workload.name,
                model=machine.without_paths(identity.model),
                model_sha256=identity.model_sha256,
                engine=identity.engine,
                precision=identity.precision,
                agreement=None,
                variants=[],
                repeats=[],
            )
            self._run = replace(self._run, settings=self._recorded_settings(), workloads=[result])
        result = self._run.workloads[0]
        result.variants.append(recorded_variant(variant, identity))
        self._run = replace(self._run, workloads=[replace(result, agreement=agreement.as_record())])

    def _processes(self, clients: int) -> int:
        return self._settings.processes_for(clients, with_gpu=bool(self._gpus.names))

    def _window(
        self,
        variant: Variant,
        serving: Serving,
        clients: int,
        number: int,
        agreement: Agreement,
        pool: ClientPool,
    ) -> Repeat:
        title = f"{variant.name}, clients: {clients}, repeat {number} of {self._settings.repeats}"
        started_s = time.monotonic()
        load = replace(
            self._load,
            port=serving.port,
            request_client=clients,
            client_processes=self._processes(clients),
            seed=self._load.seed + number,
        )
        with Clients(load, self._settings.images, agreement.expected_labels, pool) as users:
            window = measure(
                users,
                load,
                serving.process.pid,
                self._gpus,
                self._progress,
                title,
                serving.process.require_alive,
            )
        self._progress.line(
            f"{title}: {len(window.records) / window.length_s:.0f} requests a second "
            f"({time.monotonic() - started_s:.1f} s)"
        )
        repeat = window.as_repeat(variant.name, number)
        return replace(repeat, clients=clients, client_processes=load.client_processes)

    def _recorded_settings(self) -> dict[str, object]:
        settings = self._settings
        recorded = {
            **asdict(self._load),
            **asdict(settings.servers),
            "clients": list(settings.clients),
            "client_processes": settings.client_processes,
            "repeats": settings.repeats,
            "keep_servers": settings.keep_servers,
            "tp99_limit_ms": settings.tp99_limit_ms,
            "variants": [variant.name for variant in settings.variants],
            "workloads": [settings.workload.model],
        }
        return dict(machine.without_paths(recorded))
