"""`run`: load a server that already runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import psutil

from loadtest import machine
from loadtest.clients import Clients, LoadSettings
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.images import LoadImage
from loadtest.measured_run import MeasuredRun, VariantRun, WorkloadRun
from loadtest.measurement import measure
from loadtest.progress import Progress
from loadtest.rpc import server_identity
from loadtest.sampling import local_server_pid


def run_load(
    settings: LoadSettings, images: Sequence[LoadImage], command: str, progress: Progress
) -> MeasuredRun:
    """Measure one window against the server at `settings.host` and `settings.port`.

    Args:
        settings: the load.
        images: what to send.
        command: the command line, for the record.
        progress: shows how it goes.

    Raises:
        LoadTestError: no server answers, it dies, or nothing completes.
    """
    started, source = machine.utc_now(), machine.describe_source()
    identity = server_identity(settings.host, settings.port)
    gpus = GpuMonitor()
    server_pid = local_server_pid(settings.host, settings.port, identity.root_pid)
    title = f"{identity.handler} ({identity.model}, {identity.engine} {identity.precision})"
    progress.line(f"{title} at {settings.host}:{settings.port}, {settings.request_client} clients")
    with Clients(settings, images, {}) as clients:
        window = measure(
            clients, settings, server_pid, gpus, progress, title, _watch(server_pid, settings)
        )
    server = dict(machine.without_paths(identity.as_record()))
    model = str(server["model"])
    return MeasuredRun(
        kind="run",
        command=command,
        started=started,
        source=source,
        machine=machine.describe_machine(gpus.names),
        versions=machine.client_versions(),
        settings=dict(machine.without_paths(asdict(settings))),
        images=[image.as_record() for image in images],
        workloads=[
            WorkloadRun(
                name=model.removesuffix(".onnx"),
                model=model,
                model_sha256=identity.model_sha256,
                engine=identity.engine,
                precision=identity.precision,
                agreement=None,
                variants=[VariantRun(identity.handler, "the server that was running", server)],
                repeats=[window.as_repeat(identity.handler, 1)],
            )
        ],
    )


def _watch(server_pid: int | None, settings: LoadSettings) -> Callable[[], None]:
    server = None if server_pid is None else psutil.Process(server_pid)

    def require_alive() -> None:
        if server is not None and not server.is_running():
            raise LoadTestError(
                f"the server at {settings.host}:{settings.port} (process {server_pid}) ended "
                "during the measurement; its log says why"
            )

    return require_alive
