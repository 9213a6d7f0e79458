"""What a measurement is made of: runs, workloads, repeats, requests and samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from loadtest.gpu import GpuReading


@dataclass(frozen=True)
class Record:
    """One request that completed within the window.

    Attributes:
        completed_s: seconds from the window's start to the reply.
        latency_ms: from before the call to after its reply.
        image: name of the image; names joined by ";" in a batch.
        failed_images: how many images got no right answer.
        error: the first failure, or "".
    """

    completed_s: float
    latency_ms: float
    image: str
    failed_images: int
    error: str


@dataclass(frozen=True)
class Sample:
    """Counters at one moment; CPU in seconds since the process or the machine started.

    Attributes:
        at_s: seconds from the window's start.
        server_cpu_s: of the server's process tree; None where it cannot be seen.
        server_rss_bytes: resident memory of the tree; None where it cannot be seen.
        clients_cpu_s: of the client processes.
        own_cpu_s: of the load test's own process, which samples and shows progress.
        machine_busy_s: of all processes of the machine; not its interrupts, which serve the load.
        machine_steal_s: taken from this virtual machine by its host.
        gpus: one per GPU; empty where there is none.
    """

    at_s: float
    server_cpu_s: float | None
    server_rss_bytes: int | None
    clients_cpu_s: float
    own_cpu_s: float
    machine_busy_s: float
    machine_steal_s: float
    gpus: list[GpuReading]

    def relative_to(self, start_s: float) -> Sample:
        """The same with its time counted from `start_s`."""
        return replace(self, at_s=round(self.at_s - start_s, 6))


@dataclass(frozen=True)
class Repeat:
    """One measured window of one variant.

    Attributes:
        variant: its name.
        repeat: number from 1.
        length_s: length of the window.
        clients: closed-loop clients of this window; None where the settings say it for all.
        client_processes: processes that they shared; None likewise.
        samples: from the window's start to its end.
        records: its requests; empty for a variant without requests.
        images_per_s: what the variant measured itself; None where the requests tell.
        details: what else it said of itself.
    """

    variant: str
    repeat: int
    length_s: float
    samples: list[Sample]
    records: list[Record] = field(default_factory=list)
    images_per_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    clients: int | None = None
    client_processes: int | None = None


@dataclass(frozen=True)
class PartRun:
    """One part of the service, measured once with nothing around it.

    Attributes:
        name: what tables call it.
        description: what it is, in one line.
        images_per_s: batch size to images per second; empty where it could not be measured.
        threads: how many worked side by side.
        error: why there are no numbers, or "".
    """

    name: str
    description: str
    images_per_s: dict[str, float]
    threads: int
    error: str


@dataclass(frozen=True)
class StagedRequest:
    """One request that asked where its time went.

    Attributes:
        latency_ms: from before the call to after its reply, at the client.
        stages_ms: `stage_times_ms` of the reply.
    """

    latency_ms: float
    stages_ms: dict[str, float]


@dataclass(frozen=True)
class StageRun:
    """Where a variant's requests spend their time, from a window of its own that is not timed.

    Attributes:
        variant: its name.
        clients: closed-loop clients, the one that asked for stage times among them.
        server_args: what its server was started with beyond the variant's own arguments.
        requests: those of the client that asked.
        error: why there are no requests, or "".
    """

    variant: str
    clients: int
    server_args: list[str]
    requests: list[StagedRequest]
    error: str


@dataclass(frozen=True)
class VariantRun:
    """A variant as it ran.

    Attributes:
        name: what tables call it.
        description: what it is, in one line.
        server: its `server_info`; None where it is no server.
    """

    name: str
    description: str
    server: dict[str, Any] | None


@dataclass(frozen=True)
class WorkloadRun:
    """All repeats of one model.

    Attributes:
        name: what tables call it.
        model: file name of the model.
        model_sha256: its hash.
        engine: the provider that ran.
        precision: the precision that ran.
        agreement: what the check of the variants' answers found; None where there was none.
        variants: in table order.
        repeats: in the order in which they ran.
        parts: what parts of the service do alone.
        stages: where the time of a request goes.
    """

    name: str
    model: str
    model_sha256: str
    engine: str
    precision: str
    agreement: dict[str, Any] | None
    variants: list[VariantRun]
    repeats: list[Repeat]
    parts: list[PartRun] = field(default_factory=list)
    stages: list[StageRun] = field(default_factory=list)


@dataclass(frozen=True)
class MeasuredRun:
    """A measured folder.

    Attributes:
        kind: "compare", "sweep", "run" or "null_request".
        command: the command line, without paths of the machine.
        started: UTC date and time.
        source: commit and whether the tree was changed; values are None outside a checkout.
        machine: processor, memory, kernel, GPUs.
        versions: package name to version on the client's side.
        settings: what the measurement was asked for.
        images: name, hash and size of every image.
        workloads: the results.
        complete: False while more is to be measured, and for ever if the command was stopped.
    """

    kind: str
    command: str
    started: str
    source: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    images: list[dict[str, Any]]
    workloads: list[WorkloadRun]
    complete: bool = True
