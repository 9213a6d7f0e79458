"""`run` and `null_request`: one window against one server."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from loadtest.errors import LoadTestError
from loadtest.load.clients import ClientPool, Clients
from loadtest.load.images import LoadImage
from loadtest.load.rpc import ServerIdentity, server_identity
from loadtest.load.workers import Spread, WorkerPool
from loadtest.measure.sampling import local_server_pid
from loadtest.measure.window import ServerUnderLoad, measure_window
from loadtest.progress import Progress
from loadtest.records.probe import Gpus
from loadtest.records.run import CLIENTS, Run, VariantRun, Window, WorkloadRun, new_run
from loadtest.servers.server_process import ServerProcess, require_free_port, service_command
from loadtest.settings import LoadSettings

_NULL = "null"


def measure_running_server(
    load: LoadSettings,
    images: Sequence[LoadImage],
    command: str,
    progress: Progress,
    spread: Spread | None = None,
    doubling_pairs: int = 0,
) -> Run:
    """Measure one window against the server at `load.host` and `load.port`, or pairs of windows.

    Where a worker is lost, it ends with that window, whose details say so.

    Args:
        load: what is sent, by `client_processes`.
        images: of the requests.
        command: the command line, for the record.
        progress: shows how it goes.
        spread: the workers that send it; None for client processes of this one.
        doubling_pairs: pairs of windows, with the load's client processes and with twice as many;
            0 for one window.

    Raises:
        LoadTestError: no server answers, it dies, a worker does not join, or nothing completes.
    """
    server = RunningServer(load.host, load.port)
    progress.line(f"{server.title} at {load.host}:{load.port}, {load.title}")
    loads = [load]
    if doubling_pairs:
        twice = 2 * load.client_processes
        generators = twice if load.arrivals_per_s is not None else load.request_client
        loads.append(replace(load, client_processes=twice, request_client=generators))
    further = {"workers": spread and spread.workers, "doubling_pairs": doubling_pairs}
    run = server.new_run("run", load, images, command, further)
    with _pool(spread, loads, images, progress) as pool:
        if isinstance(pool, WorkerPool):
            run.results["hosts"] = pool.hosts
        for repeat in range(1, max(1, doubling_pairs) + 1):
            # Each goes first as often as the other, so that what drifts slows both.
            for own in loads if repeat % 2 else loads[::-1]:
                window = _window(server, own, images, pool, progress, repeat)
                run.workloads[0].windows.append(window)
                if any(process["lost"] for process in window.details[CLIENTS]):
                    return replace(run, complete=False)
    return _named_by_processes(run) if doubling_pairs else run


def _pool(
    spread: Spread | None,
    loads: Sequence[LoadSettings],
    images: Sequence[LoadImage],
    progress: Progress,
) -> ClientPool | WorkerPool:
    if spread is None:
        return ClientPool(min(loads[-1].client_processes, loads[-1].request_client))
    is_open = loads[0].arrivals_per_s is not None
    return WorkerPool(spread, images, loads[0].host, progress, is_open=is_open)


def _window(
    server: RunningServer,
    load: LoadSettings,
    images: Sequence[LoadImage],
    pool: ClientPool | WorkerPool,
    progress: Progress,
    repeat: int,
) -> Window:
    with Clients(load, images, {}, pool) as clients:
        window = measure_window(
            server.identity.handler,
            repeat,
            clients,
            load,
            server,
            Gpus(),
            progress,
            server.title,
            counts_nodes=True,
            tells_clients=True,
        )
    return replace(window, client_processes=len(window.details[CLIENTS]))


def _named_by_processes(run: Run) -> Run:
    """With a row of tables for each number of client processes."""
    workload = run.workloads[0]
    (variant,) = workload.variants

    def name(processes: int | None) -> str:
        plural = "" if processes == 1 else "es"
        return f"{variant.name}, {processes} client process{plural}"

    windows = [
        replace(window, variant=name(window.client_processes)) for window in workload.windows
    ]
    counts = sorted({window.client_processes or 1 for window in windows})
    variants = [replace(variant, name=name(count)) for count in counts]
    return replace(run, workloads=[replace(workload, variants=variants, windows=windows)])


class RunningServer:
    """A server that was started by another program.

    Args:
        host: where it is.
        port: its port.

    Attributes:
        identity: what it says of itself.
        pid: root of its processes; None where they cannot be sampled from here.
        title: what messages call it.

    Raises:
        LoadTestError: nothing answers there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = f"{host}:{port}"
        self.identity = identity = server_identity(host, port)
        self.pid = local_server_pid(host, port, identity.root_pid)
        self._process = None if self.pid is None else psutil.Process(self.pid)
        self.title = (
            f"{identity.handler} ({identity.model}, {identity.engine} {identity.precision})"
        )

    def require_alive(self) -> None:
        """Raise LoadTestError if it is known to have ended."""
        if self._process is not None and not self._process.is_running():
            raise LoadTestError(
                f"the server at {self._place} (process {self.pid}) ended "
                "during the measurement; its log says why"
            )

    def new_run(
        self,
        kind: str,
        load: LoadSettings,
        images: Sequence[LoadImage],
        command: str,
        further: dict[str, Any],
    ) -> Run:
        """A run of it without windows; `further` are settings beside those of the load."""
        what = "the server that was running"
        return _run(kind, load, images, self.identity, what, command, further)


def measure_null_request(
    load: LoadSettings,
    payload_bytes: int,
    launch_prefix: tuple[str, ...],
    ready_timeout_s: float,
    command: str,
    progress: Progress,
) -> Run:
    """Start the null handler's server, send requests of `payload_bytes`, and sample its CPU time.

    Raises:
        LoadTestError: the server fails, or a request does.
    """
    require_free_port(load.host, load.port)
    arguments = ["--handler", _NULL, "--max-queue-ms", "0"]
    server_command = [*launch_prefix, *service_command(arguments, load.host, load.port)]
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as folder,
        ServerProcess(server_command, "the null server", ready_timeout_s) as server,
    ):
        payload = _write_payload(Path(folder), payload_bytes, load.seed)
        server.wait_ready()
        identity = server_identity(load.host, load.port)
        if (identity.root_pid, identity.handler) != (server.pid, _NULL):
            raise LoadTestError(
                f"process {identity.root_pid} with handler {identity.handler!r} answers on "
                f"port {load.port}, not the {_NULL} server that was started"
            )
        what = "answers at once; no image is decoded"
        further = {"payload_bytes": payload_bytes}
        run = _run("null_request", load, [payload], identity, what, command, further)
        _measured(run, load, [payload], server, progress, "null request")
        server.stop()
    failed = [record.error for record in run.workloads[0].windows[0].records if record.error]
    if failed:
        raise LoadTestError(f"{len(failed)} null requests failed, the first: {failed[0]}")
    return run


def _run(
    kind: str,
    load: LoadSettings,
    images: Sequence[LoadImage],
    identity: ServerIdentity,
    description: str,
    command: str,
    further: dict[str, Any],
) -> Run:
    server = identity.as_record()
    name = kind if kind == "null_request" else server["model"].removesuffix(".onnx")
    variant = VariantRun(identity.handler, description, server)
    return new_run(
        kind,
        command,
        {**asdict(load), **further},
        images=[image.as_record() for image in images],
        workloads=[WorkloadRun.of_server(name, server, variant)],
    )


def _measured(
    run: Run,
    load: LoadSettings,
    images: Sequence[LoadImage],
    server: ServerUnderLoad,
    progress: Progress,
    title: str,
) -> Run:
    with Clients(load, images, {}) as clients:
        (variant,) = run.workloads[0].variants
        window = measure_window(
            variant.name, 1, clients, load, server, Gpus(), progress, title, counts_nodes=True
        )
    run.workloads[0].windows.append(window)
    return run


def _write_payload(folder: Path, payload_bytes: int, seed: int) -> LoadImage:
    data = random.Random(seed).randbytes(payload_bytes)  # noqa: S311 (guards no secret)
    path = folder / "payload.bin"
    path.write_bytes(data)
    return LoadImage(path, path.name, hashlib.sha256(data).hexdigest(), len(data), 0, 0)
