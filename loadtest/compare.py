"""`compare`: every variant on every workload, interleaved, after all have proved to agree."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from loadtest import machine
from loadtest.agreement import (
    Agreement,
    Answer,
    ask,
    check_identity,
    check_same_model,
    compare_answers,
)
from loadtest.clients import Clients, LoadSettings
from loadtest.gpu import GpuMonitor
from loadtest.images import LoadImage
from loadtest.in_process import measure_limit
from loadtest.measured_run import MeasuredRun, Repeat, VariantRun, WorkloadRun
from loadtest.measurement import measure
from loadtest.plan import Plan
from loadtest.progress import Progress, minutes
from loadtest.rpc import ServerIdentity
from loadtest.server_process import ServerProcess, require_free_port
from loadtest.variants import (
    HOST,
    ServerOptions,
    Variant,
    Workload,
    interleaved,
    limit_command,
    server_command,
)

_LIMIT_SLACK_S = 60.0


@dataclass(frozen=True)
class CompareSettings:
    """What `compare` measures.

    Attributes:
        workloads: models.
        variants: table rows.
        servers: how the variants run.
        load: how they are loaded.
        repeats: windows per workload and variant.
        score_tolerance: largest difference of two variants' scores for one image.
        images: what to send.
    """

    workloads: Sequence[Workload]
    variants: Sequence[Variant]
    servers: ServerOptions
    load: LoadSettings
    repeats: int
    score_tolerance: float
    images: Sequence[LoadImage]


class Comparison:
    """One run of `compare`.

    Args:
        settings: what to measure.
        command: the command line, for the record.
        progress: shows how it goes.
    """

    def __init__(self, settings: CompareSettings, command: str, progress: Progress) -> None:
        self._settings = settings
        self._command = command
        self._progress = progress
        self._gpus = GpuMonitor()
        servers = sum(variant.handler is not None for variant in settings.variants)
        workloads = len(settings.workloads)
        self._plan = Plan(
            checks=workloads * servers,
            measurements=workloads * len(settings.variants) * settings.repeats,
            window_s=settings.load.warmup_s + (settings.load.duration_s or 0.0),
        )

    def run(self) -> MeasuredRun:
        """Check and measure everything.

        Raises:
            LoadTestError: a server fails, variants disagree, or a window gives nothing.
        """
        settings = self._settings
        require_free_port(HOST, settings.servers.port)
        started, source = machine.utc_now(), machine.describe_source()
        self._progress.line(
            f"{self._plan.total} measurements planned, about "
            f"{minutes(self._plan.remaining_s())} minutes"
        )
        # All checks come first: hours of measurements must not end in a disagreement.
        checked = [(workload, *self._check(workload)) for workload in settings.workloads]
        workloads = [self._measure(*entry) for entry in checked]
        return MeasuredRun(
            kind="compare",
            command=self._command,
            started=started,
            source=source,
            machine=machine.describe_machine(self._gpus.names),
            versions=machine.client_versions(),
            settings=self._recorded_settings(),
            images=[image.as_record() for image in settings.images],
            workloads=workloads,
        )

    def _recorded_settings(self) -> dict[str, object]:
        settings = self._settings
        recorded = {
            **asdict(settings.load),
            **asdict(settings.servers),
            "repeats": settings.repeats,
            "variants": [variant.name for variant in settings.variants],
            "workloads": [workload.model for workload in settings.workloads],
        }
        return dict(machine.without_paths(recorded))

    def _server(self, variant: Variant, workload: Workload) -> ServerProcess:
        command = server_command(variant, workload, self._settings.servers)
        title = f"the {variant.name} server"
        require_free_port(HOST, self._settings.servers.port)
        return ServerProcess(command, title, self._settings.servers.ready_timeout_s)

    def _check(self, workload: Workload) -> tuple[Mapping[str, ServerIdentity], Agreement]:
        """Ask every variant about every image before anything is timed."""
        settings = self._settings
        identities: dict[str, ServerIdentity] = {}
        answers: dict[str, Mapping[str, Answer]] = {}
        for variant in settings.variants:
            if variant.handler is None:
                continue
            self._progress.line(f"{workload.name}: checking the answers of {variant.name}")
            started_s = time.monotonic()
            with self._server(variant, workload) as server:
                server.wait_ready()
                identities[variant.name] = check_identity(server, variant, settings.servers)
                check_same_model(identities)
                answers[variant.name] = ask(settings.images, settings.servers.port)
                server.stop()
            self._plan.checked(time.monotonic() - started_s)
        agreement = compare_answers(answers, settings.score_tolerance)
        self._progress.line(
            f"{workload.name}: {', '.join(answers)} agree on {agreement.images} images "
            f"(scores differ by {agreement.largest_score_difference:.2g} at most)"
        )
        return identities, agreement

    def _measure(
        self,
        workload: Workload,
        identities: Mapping[str, ServerIdentity],
        agreement: Agreement,
    ) -> WorkloadRun:
        settings = self._settings
        identity = next(iter(identities.values()))
        repeats = []
        for number, variant in interleaved(settings.variants, settings.repeats):
            started_s = time.monotonic()
            title = (
                f"[{self._plan.done + 1}/{self._plan.total}, "
                f"{minutes(self._plan.remaining_s())} left] "
                f"{workload.name} {variant.name}, repeat {number} of {settings.repeats}"
            )
            self._progress.line(title)
            if variant.handler is None:
                repeats.append(self._measure_limit(workload, identity.engine, number))
            else:
                repeats.append(
                    self._measure_server(
                        variant, workload, number, identities[variant.name], agreement, title
                    )
                )
            self._plan.measured(time.monotonic() - started_s)
        return WorkloadRun(
            name=workload.name,
            model=machine.without_paths(identity.model),
            model_sha256=identity.model_sha256,
            engine=identity.engine,
            precision=identity.precision,
            agreement=agreement.as_record(),
            variants=[
                VariantRun(
                    name=variant.name,
                    description=variant.description,
                    server=_recorded_identity(identities.get(variant.name)),
                )
                for variant in settings.variants
            ],
            repeats=repeats,
        )

    def _measure_server(
        self,
        variant: Variant,
        workload: Workload,
        number: int,
        expected: ServerIdentity,
        agreement: Agreement,
        title: str,
    ) -> Repeat:
        settings = self._settings
        # Every repeat has its own order of images, the same one for all variants.
        load = replace(settings.load, seed=settings.load.seed + number)
        with (
            self._server(variant, workload) as server,
            Clients(load, settings.images, agreement.expected_labels) as clients,
        ):
            server.wait_ready()
            identity = check_identity(server, variant, settings.servers)
            check_same_model({variant.name: expected, f"{variant.name} started again": identity})
            window = measure(
                clients, load, server.pid, self._gpus, self._progress, title, server.require_alive
            )
            server.stop()
        return window.as_repeat(variant.name, number)

    def _measure_limit(self, workload: Workload, engine: str, number: int) -> Repeat:
        settings = self._settings
        duration_s = settings.load.duration_s
        assert duration_s is not None  # noqa: S101 (compare has no --total_number)
        command = limit_command(
            # It measures two batch sizes, so that a repeat takes as long as any other.
            workload,
            settings.servers,
            engine,
            settings.images[0].path.parent,
            duration_s / 2,
        )
        timeout_s = settings.servers.ready_timeout_s + 10 * duration_s + _LIMIT_SLACK_S
        return measure_limit(command, number, self._gpus, timeout_s)


def _recorded_identity(identity: ServerIdentity | None) -> dict[str, object] | None:
    if identity is None:
        return None
    record = dict(machine.without_paths(asdict(identity)))
    del record["pid"]  # a new one in every repeat
    return record
