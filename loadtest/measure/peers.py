"""`peers`: this project's variants beside other ways to serve the same model.

For each workload every setting of every peer first answers all images, which must agree with the
first variant's answers, and then serves one short window: the setting with the most throughput is
kept. Those that are left take turns, each with a fresh server for its windows at all numbers of
clients, and then once more under an open loop of more than they can serve. What fails costs only
itself, and the report says why.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import median

from interfaces.peers import Peer, ServingGraph
from loadtest.errors import LoadTestError
from loadtest.load.clients import ClientPool, Clients, fitting_client_processes
from loadtest.load.images import LoadImage
from loadtest.measure.agreement import Answer, compare_answers
from loadtest.measure.contestants import (
    Contestant,
    OwnVariant,
    PeerPlace,
    PeerSetting,
    QueueLimit,
    Running,
)
from loadtest.measure.null_model import NULL_MODEL, write_null_model
from loadtest.measure.plan import Plan
from loadtest.measure.window import measure_window
from loadtest.processes.child_process import ChildProcess
from loadtest.progress import Progress, minutes
from loadtest.records import machine
from loadtest.records.probe import Gpus
from loadtest.records.raw_files import RawWriter
from loadtest.records.run import TRIAL, VariantRun, Window, WorkloadRun, new_run
from loadtest.servers.server_process import require_free_port
from loadtest.servers.variants import HOST, Variant, Workload, interleaved, serving_graph_command
from loadtest.settings import LoadSettings, ServerOptions

# As the service's own --max-queue-ms.
_QUEUE_MS = 450


@dataclass(frozen=True)
class PeerWorkload:
    """A model in one precision.

    Attributes:
        name: what tables call it.
        model: name of the zoo, ONNX file, or "null".
        engine: that runs it everywhere.
        precision: that runs.
        score_tolerance: largest difference of two scores for one image.
    """

    name: str
    model: str
    engine: str
    precision: str
    score_tolerance: float


@dataclass(frozen=True)
class PeersSettings:
    """What is measured; attributes are the options of the same name unless told here.

    Attributes:
        variants: of this project's service; the first one's answers are what others must give.
        peers_dir: folder of the peers' environments.
        client_processes: None for what fits each number of clients.
        on_gpu: whether the engine runs on a GPU of this machine.
        deadline_ms: of a request under overload; later answers are worth nothing.
    """

    workloads: Sequence[PeerWorkload]
    variants: Sequence[Variant]
    peers: Sequence[Peer]
    peers_dir: Path
    servers: ServerOptions
    load: LoadSettings
    clients: Sequence[int]
    client_processes: int | None
    repeats: int
    overload: float
    deadline_ms: float
    on_gpu: bool
    images: Sequence[LoadImage]

    def recorded(self) -> dict[str, object]:
        """What run.json says of them."""
        return {
            **asdict(self.load),
            **asdict(self.servers),
            "repeats": self.repeats,
            "clients": [*self.clients],
            "client_processes": self.client_processes,
            "variants": [variant.name for variant in self.variants],
            "peers": [peer.name for peer in self.peers],
            "workloads": [asdict(workload) for workload in self.workloads],
            "overload": self.overload,
            "deadline_ms": self.deadline_ms,
            "queue_ms": _QUEUE_MS,
        }


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
        self._gpus = Gpus()
        self._jobs: list[_Job] = []
        self._saved_s = time.monotonic()
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
        self._run = new_run(
            "peers",
            command,
            settings.recorded(),
            images=[image.as_record() for image in settings.images],
            complete=False,
            results={"failures": [], "kept": [], "notes": []},
        )

    def run(self) -> None:
        """Measure all workloads.

        Raises:
            LoadTestError: this project's first variant fails, so that nothing can be compared. What
                was measured before is in the folder.
        """
        settings = self._settings
        require_free_port(HOST, settings.servers.port)
        self._progress.line(
            f"{self._plan.total} windows planned, about {minutes(self._plan.remaining_s())} minutes"
        )
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="peers-") as folder:
            self._stack = stack
            self._renew_pool()
            for workload in settings.workloads:
                job = _Job(workload, self._contestants(workload, Path(folder)))
                self._jobs.append(job)
                self._choose(job)
                self._closed_loops(job)
                if settings.overload:
                    self._overloads(job)
        self._run = replace(self._run, complete=True)
        self._save()

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

    def _renew_pool(self) -> None:
        counts = [*self._settings.clients, self._settings.load.request_client]
        self._pool = self._stack.enter_context(ClientPool(max(map(self._processes, counts))))

    def _processes(self, clients: int) -> int:
        if self._settings.client_processes is not None:
            return min(self._settings.client_processes, clients)
        with_gpu = bool(self._gpus.names)
        return fitting_client_processes(clients, machine.usable_cores(), with_gpu=with_gpu)

    def _contestants(self, workload: PeerWorkload, folder: Path) -> list[Contestant]:
        settings = self._settings
        options = replace(settings.servers, engine=workload.engine, precision=workload.precision)
        model = workload.model
        if model == NULL_MODEL:
            model = str(write_null_model(folder))
        served = Workload(workload.name, model)
        graph = folder / f"{workload.name}.onnx"
        place = PeerPlace(
            folder=settings.peers_dir,
            graph=graph,
            facts=_write_graph(serving_graph_command(served, options, graph)),
            model=model,
            engine=workload.engine,
            on_gpu=settings.on_gpu,
            labels=_labels(),
            probe=settings.images[0],
            options=options,
        )
        return [
            *(OwnVariant(variant, served, options) for variant in settings.variants),
            *(
                PeerSetting(peer, setting, place)
                for peer in settings.peers
                for setting in peer.tried(on_gpu=settings.on_gpu)
            ),
        ]

    def _choose(self, job: _Job) -> None:
        """Compare all answers, and keep the best setting of each peer."""
        kept: list[Contestant] = []
        for _, group in groupby(job.contestants, key=lambda contestant: contestant.group):
            settings = [*group]
            rates: dict[str, float] = {}
            for contestant in settings:
                self._progress.line(f"{job.workload.name}: the answers of {contestant.name}")
                started_s = time.monotonic()
                with self._costs_itself(job, contestant), contestant.serving(None) as running:
                    job.check(contestant, running, running.ask(self._settings.images))
                    rates[contestant.name] = 0.0
                    self._saved_s = time.monotonic()
                    self._plan.checked(self._saved_s - started_s)
                    if len(settings) > 1:
                        load = self._closed_load(self._settings.load.request_client)
                        window = self._window(job, contestant, running, load, TRIAL)
                        rates[contestant.name] = _rate(window)
            if rates:
                best = max(rates, key=lambda name: rates[name])
                kept += [contestant for contestant in settings if contestant.name == best]
                self._run.results["kept"].append({"workload": job.workload.name, "variant": best})
            elif not kept:
                failure = self._run.results["failures"][-1]
                raise LoadTestError(f"nothing was timed: {failure['reason']}")
        job.contestants = kept

    def _closed_loops(self, job: _Job) -> None:
        for contestant, repeat in self._turns(job):
            clients = self._settings.clients
            with self._costs_itself(job, contestant), contestant.serving(None) as running:
                for count in clients if repeat % 2 else clients[::-1]:
                    self._window(job, contestant, running, self._closed_load(count), repeat)

    def _overloads(self, job: _Job) -> None:
        """More than each can serve: a multiple of what it served at best."""
        for contestant, repeat in self._turns(job):
            if not (best := job.best_rate(contestant.name)):
                continue
            offered = self._settings.overload * best
            limit = QueueLimit(_QUEUE_MS, max(1, round(best * _QUEUE_MS / 1000)))
            processes = self._processes(max(self._settings.clients))
            load = replace(
                self._settings.load,
                request_client=processes,
                client_processes=processes,
                arrivals_per_s=offered,
                request_timeout_s=self._settings.deadline_ms / 1000,
            )
            with self._costs_itself(job, contestant), contestant.serving(limit) as running:
                self._window(job, contestant, running, load, repeat)

    def _turns(self, job: _Job) -> Iterator[tuple[Contestant, int]]:
        """All that have not failed, forwards and backwards in turn."""
        for contestant, repeat in interleaved(job.contestants, self._settings.repeats):
            if contestant.name not in job.failed:
                yield contestant, repeat

    @contextmanager
    def _costs_itself(self, job: _Job, contestant: Contestant) -> Iterator[None]:
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
            # Its clients may be in the middle of a load.
            self._pool.close()
            self._renew_pool()

    def _closed_load(self, clients: int) -> LoadSettings:
        processes = self._processes(clients)
        return replace(self._settings.load, request_client=clients, client_processes=processes)

    def _window(
        self, job: _Job, contestant: Contestant, running: Running, load: LoadSettings, repeat: int
    ) -> Window:
        # Every repeat has its own order of images, the same one for all.
        load = replace(
            load,
            port=self._settings.servers.port,
            seed=self._settings.load.seed + repeat,
            wire=contestant.wire,
        )
        is_open = load.arrivals_per_s is not None
        what = (
            f"{load.arrivals_per_s:.0f} arrivals a second"
            if is_open
            else (f"clients: {load.request_client}")
        )
        title = (
            f"[{self._plan.done + 1}/{self._plan.total}, {minutes(self._plan.remaining_s())} left] "
            f"{job.workload.name} {contestant.name}, repeat {repeat}, {what}"
        )
        self._progress.line(title)
        with Clients(load, self._settings.images, job.expected_labels, self._pool) as users:
            window = measure_window(
                contestant.name,
                repeat,
                users,
                load,
                running.process.pid,
                self._gpus,
                self._progress,
                title,
                running.process.require_alive,
            )
        window = replace(
            window,
            clients=None if is_open else load.request_client,
            client_processes=load.client_processes,
        )
        job.result.windows.append(window)
        self._save()
        # With the end of the server before it and the start of its own.
        saved_s = time.monotonic()
        self._plan.measured(saved_s - self._saved_s)
        self._saved_s = saved_s
        return window


class _Job:
    """A workload: who serves it, what they said, and what was measured.

    Attributes:
        tried: all settings.
        contestants: those of them that are kept.
        failed: names of those that failed.
        result: what was measured.
    """

    def __init__(self, workload: PeerWorkload, contestants: list[Contestant]) -> None:
        self.workload = workload
        self.tried = self.contestants = contestants
        self.failed: set[str] = set()
        self.expected_labels: Mapping[str, str] = {}
        self._answers: dict[str, Mapping[str, Answer]] = {}
        self.result = WorkloadRun(
            name=workload.name,
            model=Path(workload.model).name,
            model_sha256="",
            engine=workload.engine,
            precision=workload.precision,
            agreement=None,
            variants=[],
            windows=[],
        )

    def check(
        self, contestant: Contestant, running: Running, answers: Mapping[str, Answer]
    ) -> None:
        """Keep the answers of a contestant that agrees with all before it.

        Raises:
            LoadTestError: it does not.
        """
        all_answers = {**self._answers, contestant.name: answers}
        agreement = compare_answers(all_answers, self.workload.score_tolerance)
        self._answers = all_answers
        self.expected_labels = agreement.expected_labels
        self.result = replace(
            self.result,
            agreement=agreement.as_record(),
            model_sha256=running.record["model_sha256"],
            variants=[
                *self.result.variants,
                VariantRun(contestant.name, contestant.description, running.record),
            ],
        )

    def best_rate(self, name: str) -> float:
        """The highest median of right answers a second, over the numbers of clients; 0 for none."""
        rates: dict[int, list[float]] = {}
        for window in self.result.windows:
            if window.variant == name and window.clients and window.repeat != TRIAL:
                rates.setdefault(window.clients, []).append(_rate(window))
        return max((median(values) for values in rates.values()), default=0.0)


def _rate(window: Window) -> float:
    """Right answers a second."""
    return sum(not record.failed_images for record in window.records) / window.length_s


def _labels() -> Path:
    """The names of ImageNet's classes as the service has them; it is not imported for them."""
    spec = find_spec("service")
    if spec is None or not spec.submodule_search_locations:
        raise LoadTestError("the package 'service' is not installed")
    return Path(spec.submodule_search_locations[0]) / "imagenet_labels.txt"


def _write_graph(command: Sequence[str]) -> ServingGraph:
    """Write the graph that peers serve; LoadTestError where it cannot be made."""
    found = None
    with ChildProcess(command, "writing the graph for peers") as process:
        while line := process.next_line():
            found = ServingGraph.from_line(line) or found
        if found is None:
            raise LoadTestError(process.ended())
    return found
