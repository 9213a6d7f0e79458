"""What is compared: every row of the report, and the command that runs it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from loadtest.errors import LoadTestError

HOST = "127.0.0.1"
BASELINE = "baseline"
CONTROL = "baseline-no-lock"
PIPELINE = "pipeline"
IN_PROCESS = "in-process"


@dataclass(frozen=True)
class Variant:
    """One way to run a workload.

    Attributes:
        name: what tables and --variants call it.
        handler: the service's --handler; None where no server runs.
        server_args: further arguments of the service.
        description: what it is, in one line.
    """

    name: str
    handler: str | None
    server_args: tuple[str, ...]
    description: str


VARIANTS = {
    variant.name: variant
    for variant in (
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
        ),
        Variant(PIPELINE, "pipeline", (), "nodes with instances and batching queues, no lock"),
        Variant(
            "pipeline-batch-4",
            "pipeline",
            ("--set", "resnet50.max=4"),
            "the pipeline with batches of up to 4, whatever suits the engine",
        ),
        Variant(
            "pipeline-timeout-0",
            "pipeline",
            ("--set", "resnet50.max=4", "--set", "batching_timeout=0"),
            "the same with a batching_timeout of 0, so that no item can wait for others",
        ),
        Variant(
            IN_PROCESS,
            None,
            (),
            "limit: the pipeline's preprocessing and engine in one process, no server",
        ),
    )
}
DEFAULT_VARIANTS = (BASELINE, CONTROL, PIPELINE, IN_PROCESS)


@dataclass(frozen=True)
class Workload:
    """A model to compare the variants on.

    Attributes:
        name: what tables call it.
        model: the service's --model.
    """

    name: str
    model: str


@dataclass(frozen=True)
class ServerOptions:
    """How every variant is to run.

    Attributes:
        engine: the service's --engine.
        precision: the service's --precision.
        model_args: what else the model needs, as the service and the limit spell it: --weights,
            --mean, --std with their values.
        config: the pipeline's TOML file, or None for the shipped one.
        port: port to serve on.
        launch_prefix: words before every command, such as ("taskset", "-c", "0,1").
        ready_timeout_s: longest wait for a server to be ready.
    """

    engine: str = "auto"
    precision: str = "fp32"
    model_args: tuple[str, ...] = ()
    config: str | None = None
    port: int = 8095
    launch_prefix: tuple[str, ...] = ()
    ready_timeout_s: float = 180.0


def parse_variants(text: str) -> list[Variant]:
    """The variants that a comma-separated list names.

    Raises:
        LoadTestError: an unknown or repeated name, or no server among them.
    """
    variants = []
    for name in _split(text, "--variants"):
        if name not in VARIANTS:
            closest = get_close_matches(name, VARIANTS, n=1)
            hint = f"; did you mean {closest[0]!r}?" if closest else "."
            raise LoadTestError(f"unknown variant {name!r}{hint} Known: {', '.join(VARIANTS)}")
        variants.append(VARIANTS[name])
    if all(variant.handler is None for variant in variants):
        raise LoadTestError("--variants names no server; add at least one, such as 'baseline'")
    return variants


def parse_workloads(text: str) -> list[Workload]:
    """The workloads of a comma-separated list of model names and ONNX files.

    Raises:
        LoadTestError: a repeated name, or a file that does not exist.
    """
    workloads = []
    for model in _split(text, "--workloads"):
        is_file = "/" in model or model.endswith(".onnx")
        if is_file and not Path(model).is_file():
            raise LoadTestError(f"model file {model!r} of --workloads does not exist")
        workloads.append(Workload(Path(model).stem if is_file else model, model))
    return workloads


def _split(text: str, flag: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise LoadTestError(f"{flag} names nothing")
    for name in names:
        if names.count(name) > 1:
            raise LoadTestError(f"{flag} names {name!r} more than once")
    return names


def server_command(variant: Variant, workload: Workload, options: ServerOptions) -> list[str]:
    """The command that serves a variant."""
    command = [*options.launch_prefix, sys.executable, "-m", "service"]
    command += ["--handler", str(variant.handler), "--model", workload.model]
    command += [*options.model_args]
    command += ["--engine", options.engine, "--precision", options.precision]
    command += ["--host", HOST, "--port", str(options.port)]
    if variant.handler == "pipeline" and options.config is not None:
        command += ["--config", options.config]
    return [*command, *variant.server_args]


def limit_command(
    workload: Workload, options: ServerOptions, engine: str, images: Path, duration_s: float
) -> list[str]:
    """The command that measures the in-process limit with the engine that the servers chose."""
    command = [*options.launch_prefix, sys.executable, "-m", "pipeline.limit"]
    command += ["--model", workload.model, *options.model_args]
    command += ["--engine", engine, "--precision", options.precision]
    if options.config is not None:
        command += ["--config", options.config]
    return [*command, "--img_dir", str(images), "--duration_s", f"{duration_s:g}"]


def interleaved(variants: Sequence[Variant], repeats: int) -> list[tuple[int, Variant]]:
    """(repeat number, variant) in the order A B C, C B A, A B C, ...

    A machine that slowly changes its speed thus favours no variant.
    """
    order: list[tuple[int, Variant]] = []
    for repeat in range(1, repeats + 1):
        row = variants if repeat % 2 else list(reversed(variants))
        order.extend((repeat, variant) for variant in row)
    return order


def parse_launch_prefix(text: str) -> tuple[str, ...]:
    """Split a command prefix as a shell would.

    Raises:
        LoadTestError: an unclosed quotation mark.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise LoadTestError(f"--launch_prefix {text!r}: {error}") from error
