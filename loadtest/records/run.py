"""What a measured folder holds: the run, its workloads, windows, requests, samples and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from interfaces.sizes import size_text
from loadtest.records import machine

CLIENTS = "clients"
"""Of a window's details: what its client processes did, one by one."""
TRIAL = 0
"""The number of a window that only chooses between settings."""


@dataclass(frozen=True)
class Record:
    """One request that belongs to the window: it completed in it, or was to be sent in it.

    Attributes:
        completed_s: seconds from the window's start to the reply; NaN in a thinned table.
        latency_ms: from before the call to after its reply; in an open loop from the planned time.
        image: name of the image; names joined by ";" in a batch; "" in a thinned table.
        failed_images: how many images got no right answer.
        error: the first failure, or "".
        lag_ms: how late the load generator was with it, which latency_ms contains: in an open loop
            with sending it, and in any with reading the reply, of which this is a bound.
        worker: number of the process that sent it; "" where it was not kept.
    """

    completed_s: float
    latency_ms: float
    image: str
    failed_images: int
    error: str
    lag_ms: float = 0.0
    worker: str = ""


@dataclass(frozen=True)
class Sample:
    """The metrics at one moment.

    Attributes:
        at_s: seconds from the window's start.
        values: name of a metric to its reading; `loadtest.records.metrics` explains them.
    """

    at_s: float
    values: dict[str, Any]


@dataclass(frozen=True)
class Window:
    """One measured window of one variant.

    Attributes:
        variant: its name.
        repeat: number from 1, or TRIAL.
        length_s: from its start to its end.
        samples: the first at its start, the last at or right after its end.
        records: its requests in the order in which they completed. They completed within it; those
            of an open loop were to be sent within it. Empty for a variant without requests.
        images_per_s: what the variant measured itself, or of an open loop what was answered within
            the window; None where the requests tell.
        details: what else it said of itself.
        clients: closed-loop clients of this window; None where the settings say it for all.
        client_processes: processes that they shared; None where the settings say it for all.
        offered_per_s: requests a second of an open loop; None for clients that wait.
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
    offered_per_s: float | None = None


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
    """All windows of one model.

    Attributes:
        name: what tables call it.
        model: file name of the model.
        model_sha256: its hash.
        engine: the provider that ran.
        precision: the precision that ran.
        agreement: what the check of the variants' answers found; None where there was none.
        variants: in table order.
        windows: in the order in which they ran.
        parts: what parts of the service do alone.
        stages: where the time of a request goes.
    """

    name: str
    model: str
    model_sha256: str
    engine: str
    precision: str
    agreement: dict[str, Any] | None = None
    variants: list[VariantRun] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    parts: list[PartRun] = field(default_factory=list)
    stages: list[StageRun] = field(default_factory=list)

    @classmethod
    def of_server(cls, name: str, server: Mapping[str, Any], *variants: VariantRun) -> WorkloadRun:
        """One without windows, of the model that a server's record names."""
        return cls(
            name,
            *(server["model"], server["model_sha256"], server["engine"], server["precision"]),
            variants=[*variants],
        )

    @property
    def title(self) -> str:
        """What plots call it."""
        return f"{self.name}, {self.engine} {self.precision}"


@dataclass(frozen=True)
class Check:
    """One requirement, and whether it is met.

    Attributes:
        name: what is asked.
        bound: the limit, in words.
        measured: the value that was found, in words.
        met: whether the one is within the other; None where it was not measured.
    """

    name: str
    bound: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Run:
    """A measured folder.

    Attributes:
        kind: the command that measured it.
        command: the command line, without paths of the machine.
        started: UTC date and time.
        source: commit and whether the tree was changed; values are None outside a checkout.
        machine: processor, memory, kernel, GPUs.
        versions: package name to version, of the load test or of each process that is compared.
        settings: what the measurement was asked for.
        images: name, hash and size of every image that was sent.
        workloads: what was measured of servers under load.
        checks: requirements that were judged while it ran.
        results: what else this kind of run found.
        complete: False while more is to be measured; it stays False if the command is stopped.
    """

    kind: str
    command: str
    started: str
    source: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, Any]
    settings: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list)
    workloads: list[WorkloadRun] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    @property
    def mean_image_size(self) -> str:
        """The mean size of the images' files, in words; StatisticsError for none."""
        return size_text(fmean(image["size_bytes"] for image in self.images))


def new_run(kind: str, command: str, settings: dict[str, Any], **fields: Any) -> Run:
    """A run that starts now, on this machine and from this source; paths are left out of it."""
    return Run(
        kind=kind,
        command=command,
        started=machine.utc_now(),
        source=machine.describe_source(),
        machine=machine.describe_machine(),
        **{"versions": machine.client_versions(), **fields},
        settings=dict(machine.without_paths(settings)),
    )
