"""What is compared: every row of the report."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from interfaces.engines import runs_on_gpu
from interfaces.names import closest_name_hint
from loadtest.errors import UsageError

HOST = "127.0.0.1"
BASELINE = "baseline"
CONTROL = "baseline-no-lock"
PIPELINE = "pipeline"
PIPELINE_AUTO = "pipeline-auto"
PIPELINE_GPU = "pipeline-gpu"
IN_PROCESS = "in-process"

# Of the pipeline and its bounds; the service would choose where it is not told.
_CPU, _GPU = "cpu", "gpu"
_PROFILE_STAGES = ("--set", "profile_stages=true")
# "pipeline-4w": the variant "pipeline" with four server processes; "pipeline-auto": with as many as
# the service chooses. Every other one has one, whatever the service would choose.
_WITH_WORKERS = re.compile(r"(?P<name>.+)-(?:(?P<workers>[1-9]\d*)w|auto)")
# "pipeline-2r": a front end, and two replicas of the variant "pipeline" on a Ray of this machine.
_WITH_REPLICAS = re.compile(r"(?P<name>.+)-(?P<replicas>[1-9]\d*)r")
AUTO_WORKERS = "auto"
"""What `--workers` takes for as many as the service chooses."""


def server_processes(count: int) -> str:
    """So many server processes, in words."""
    return "one server process" if count == 1 else f"{count} server processes"


@dataclass(frozen=True)
class Variant:
    """One way to run a workload.

    Attributes:
        name: what tables and --variants call it.
        handler: the service's --handler; None where no server runs.
        server_args: further arguments of the service.
        description: what it is, in one line.
        bound_args: arguments of `python -m pipeline.upper_bound`, where no server runs.
        decode: the --decode of a pipeline; "" for other servers.
        is_part: True if it is one part of the service, measured once for its own sake; it is no
            row of the comparison.
        workers: its server processes; None for as many as the service chooses.
        replicas: of a front end; 0 where there is none.
        is_control: True if it only tells what one change alone is worth.
    """

    name: str
    handler: str | None
    server_args: tuple[str, ...]
    description: str
    bound_args: tuple[str, ...] = ()
    decode: str = ""
    is_part: bool = False
    workers: int | None = 1
    replicas: int = 0
    is_control: bool = False

    @property
    def decodes_on_gpu(self) -> bool:
        """True if its decoder is not the CPU's, so that its pixels differ a little."""
        return self.decode == _GPU

    def with_workers(self, workers: int | None) -> Variant:
        """The same with so many server processes, None for as many as the service chooses."""
        if workers is None:
            suffix, words = AUTO_WORKERS, "as many server processes as the service chooses"
        else:
            suffix, words = f"{workers}w", server_processes(workers)
        return replace(
            self,
            name=f"{self.name}-{suffix}",
            workers=workers,
            description=f"{self.description}; {words}",
        )

    def with_replicas(self, replicas: int) -> Variant:
        """The same in so many replicas behind a front end."""
        count = "one replica" if replicas == 1 else f"{replicas} replicas"
        return replace(
            self,
            name=f"{self.name}-{replicas}r",
            replicas=replicas,
            description=f"{self.description}; {count} behind a front end, by Ray Serve",
        )

    def with_profiled_stages(self) -> Variant:
        """The same with every backend waiting for its own work; for a pipeline only."""
        if self.handler != "pipeline":
            return self
        return replace(self, server_args=(*self.server_args, *_PROFILE_STAGES))


_BATCH_4 = ("--set", "resnet50.max=4")
_ALL = (
    Variant(
        BASELINE,
        "baseline",
        (),
        "per request: decode, resize and normalise, then one engine behind a lock",
    ),
    Variant(
        CONTROL,
        "baseline",
        ("--no-lock",),
        "control: the baseline without its lock; what it gains is not the pipeline's merit",
        is_control=True,
    ),
    Variant(
        PIPELINE,
        "pipeline",
        (),
        "nodes with instances and batching queues, no lock",
        decode=_CPU,
    ),
    Variant(
        PIPELINE_GPU,
        "pipeline",
        (),
        "the pipeline with decoding and preprocessing on the GPU",
        decode=_GPU,
    ),
    Variant(
        "pipeline-batch-4",
        "pipeline",
        _BATCH_4,
        "the pipeline with batches of up to 4, whatever suits the engine",
        decode=_CPU,
    ),
    Variant(
        "pipeline-timeout-0",
        "pipeline",
        (*_BATCH_4, "--set", "batching_timeout=0"),
        "the same with a batching_timeout of 0, so that no item can wait for others",
        decode=_CPU,
    ),
    Variant(
        IN_PROCESS,
        None,
        (),
        "upper bound: the pipeline's preprocessing and engine without a server, in one process or "
        "several, whichever is faster",
        decode=_CPU,
    ),
    *(
        Variant(name, None, (), description, ("--part", part), decode, is_part=True)
        for name, part, decode, description in (
            (
                "engine-alone",
                "engine",
                _CPU,
                "the engine's node on images that are ready in memory",
            ),
            (
                *("engine-alone-gpu", "engine", _GPU),
                "the engine's node on images that are ready on the GPU",
            ),
            (
                *("decode-alone-cpu", "decode", _CPU),
                "decoding and preprocessing on the CPU, one thread a core",
            ),
            ("decode-alone-gpu", "decode", _GPU, "decoding and preprocessing on the GPU"),
        )
    ),
)
VARIANTS = {variant.name: variant for variant in _ALL}
# What the service does by itself, which names its number of processes as soon as that is known.
_CPU_DEFAULTS = (
    BASELINE,
    CONTROL,
    f"{PIPELINE}-{AUTO_WORKERS}",
    IN_PROCESS,
    "engine-alone",
    "decode-alone-cpu",
)
# Not here: the control, because an engine of a GPU needs the lock; and the in-process upper bound,
# whose threads decode and infer in turn, so that either the cores or the GPU would idle.
_GPU_DEFAULTS = (
    BASELINE,
    f"{PIPELINE}-{AUTO_WORKERS}",
    f"{PIPELINE_GPU}-{AUTO_WORKERS}",
    "engine-alone",
    "engine-alone-gpu",
    "decode-alone-cpu",
    "decode-alone-gpu",
)


def default_variants(*, with_gpu: bool, keeps_ratio: bool = False) -> str:
    """What --variants is where it is not given.

    Args:
        with_gpu: whether the engine runs on a GPU.
        keeps_ratio: whether images keep their aspect ratio, as they cannot on a GPU.
    """
    names = _GPU_DEFAULTS if with_gpu else _CPU_DEFAULTS
    on_gpu = (_parse_variant(name).decodes_on_gpu for name in names)
    return ",".join(
        name
        for name, is_on_gpu in zip(names, on_gpu, strict=True)
        if not (keeps_ratio and is_on_gpu)
    )


def default_workloads(*, with_gpu: bool) -> str:
    """What --workloads is where it is not given."""
    return "resnet50" if with_gpu else "resnet50,efficientnet_lite0"


def may_use_gpu(engine: str, *, has_gpu: bool) -> bool:
    """Whether the engine can run on a GPU of this machine."""
    return has_gpu and runs_on_gpu(engine)


def default_precision(*, with_gpu: bool) -> str:
    """The precision that suits the engine: fp16 on a GPU, fp32 on a CPU."""
    return "fp16" if with_gpu else "fp32"


@dataclass(frozen=True)
class Workload:
    """A model to compare the variants on."""

    name: str
    model: str


def parse_variants(text: str) -> list[Variant]:
    """The variants that a comma-separated list names.

    Raises:
        UsageError: an unknown or repeated name, or no server among them.
    """
    variants = [_parse_variant(name) for name in _split(text, "--variants")]
    if all(variant.handler is None for variant in variants):
        raise UsageError("--variants names no server; add at least one, such as 'baseline'")
    return variants


def split_workers(name: str) -> tuple[str, int | None]:
    """The variant of a name, and its number of server processes; None if the service chooses."""
    if (found := _WITH_WORKERS.fullmatch(name)) is None:
        return name, 1
    return found["name"], int(found["workers"]) if found["workers"] else None


def is_pipeline(name: str) -> bool:
    """Whether a variant of this name is a pipeline in a server, whatever its settings are."""
    variant = VARIANTS.get(split_workers(name)[0])
    return variant is not None and variant.handler == PIPELINE


def _parse_variant(name: str) -> Variant:
    base, workers = split_workers(name)
    if found := _WITH_REPLICAS.fullmatch(name):
        base = found["name"]
    if base not in VARIANTS:
        raise UsageError(
            f"unknown variant {name!r}{closest_name_hint(base, VARIANTS)} Known: "
            f"{', '.join(VARIANTS)}; a server's with several processes: 'pipeline-4w' or "
            "'pipeline-auto'; with replicas behind a front end: 'pipeline-2r'"
        )
    variant = VARIANTS[base]
    if base == name:
        return variant
    if variant.handler is None:
        raise UsageError(f"{name!r}: {base!r} is no server, so it has no worker processes")
    if found:
        return variant.with_replicas(int(found["replicas"]))
    return variant.with_workers(workers)


def parse_workloads(text: str) -> list[Workload]:
    """The workloads of a comma-separated list of model names and ONNX files.

    Raises:
        UsageError: a repeated name, or a file that does not exist.
    """
    workloads = []
    for model in _split(text, "--workloads"):
        is_file = "/" in model or model.endswith(".onnx")
        if is_file and not Path(model).is_file():
            raise UsageError(f"model file {model!r} of --workloads does not exist")
        workloads.append(Workload(Path(model).stem if is_file else model, model))
    return workloads


def _split(text: str, flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{flag} names nothing")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{flag} names {name!r} more than once")
    return names
