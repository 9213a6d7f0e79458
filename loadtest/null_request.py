"""`null_request`: the server's CPU time for a request that asks nothing of a model."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from loadtest import machine
from loadtest.clients import Clients, LoadSettings
from loadtest.errors import LoadTestError
from loadtest.gpu import GpuMonitor
from loadtest.images import LoadImage
from loadtest.measured_run import MeasuredRun, VariantRun, WorkloadRun
from loadtest.measurement import measure
from loadtest.progress import Progress
from loadtest.rpc import server_identity
from loadtest.server_process import ServerProcess, require_free_port
from loadtest.summary import summarise

HANDLER = "null"


def measure_null_request(
    settings: LoadSettings,
    payload_bytes: int,
    launch_prefix: tuple[str, ...],
    ready_timeout_s: float,
    command: str,
    progress: Progress,
) -> MeasuredRun:
    """Start the null handler's server, send requests of `payload_bytes`, and sample its CPU time.

    Args:
        settings: the load; `total_number` requests are measured.
        payload_bytes: size of every request's data.
        launch_prefix: words before the server's command.
        ready_timeout_s: longest wait for the server to be ready.
        command: the command line, for the record.
        progress: shows how it goes.

    Raises:
        LoadTestError: the server fails, or a request does.
    """
    require_free_port(settings.host, settings.port)
    started, source = machine.utc_now(), machine.describe_source()
    gpus = GpuMonitor()
    server_command = [*launch_prefix, sys.executable, "-m", "service", "--handler", HANDLER]
    server_command += ["--host", settings.host, "--port", str(settings.port)]
    with tempfile.TemporaryDirectory(prefix="loadtest-") as folder:
        payload = _write_payload(Path(folder), payload_bytes, settings.seed)
        with (
            ServerProcess(server_command, "the null server", ready_timeout_s) as server,
            Clients(settings, [payload], {}) as clients,
        ):
            server.wait_ready()
            identity = server_identity(settings.host, settings.port)
            if (identity.root_pid, identity.handler) != (server.pid, HANDLER):
                raise LoadTestError(
                    f"process {identity.root_pid} with handler {identity.handler!r} answers on "
                    f"port {settings.port}, not the {HANDLER} server that was started"
                )
            window = measure(
                clients, settings, server.pid, gpus, progress, "null request", server.require_alive
            )
            server.stop()
    failed = [record.error for record in window.records if record.error]
    if failed:
        raise LoadTestError(f"{len(failed)} null requests failed, the first: {failed[0]}")
    record = dict(machine.without_paths(identity.as_record()))
    return MeasuredRun(
        kind="null_request",
        command=command,
        started=started,
        source=source,
        machine=machine.describe_machine(gpus.names),
        versions=machine.client_versions(),
        settings=dict(machine.without_paths({**asdict(settings), "payload_bytes": payload_bytes})),
        images=[payload.as_record()],
        workloads=[
            WorkloadRun(
                name="null_request",
                model=identity.model,
                model_sha256=identity.model_sha256,
                engine=identity.engine,
                precision=identity.precision,
                agreement=None,
                variants=[VariantRun(HANDLER, "answers at once; no image is decoded", record)],
                repeats=[window.as_repeat(HANDLER, 1)],
            )
        ],
    )


def _write_payload(folder: Path, payload_bytes: int, seed: int) -> LoadImage:
    data = random.Random(seed).randbytes(payload_bytes)  # noqa: S311 (guards no secret)
    path = folder / "payload.bin"
    path.write_bytes(data)
    return LoadImage(path, path.name, hashlib.sha256(data).hexdigest(), len(data), 0, 0)


def cpu_us_per_request(run: MeasuredRun) -> float:
    """Server CPU time (user and system) per request, in microseconds.

    Raises:
        LoadTestError: the server's process could not be sampled.
    """
    workload = run.workloads[0]
    summary = summarise(run, workload)[0]
    percent = summary.usage.server_cpu_percent
    if percent is None:
        raise LoadTestError("the server's CPU time could not be sampled")
    return percent / 100 * workload.repeats[0].length_s / summary.requests * 1e6
