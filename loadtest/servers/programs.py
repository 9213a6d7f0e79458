"""The commands of the programs that the load test starts for a variant or a workload."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from interfaces.image_folder import SKIP_BAD_IMAGES
from interfaces.options import dashed
from loadtest.errors import UsageError
from loadtest.servers.variants import AUTO_WORKERS, HOST, Variant, Workload
from loadtest.settings import ServerOptions

_CPU_BATCH_SIZES = (1, 2, 4)
_GPU_BATCH_SIZES = (1, 4, 8, 16, 32)


def server_command(variant: Variant, workload: Workload, options: ServerOptions) -> list[str]:
    """The command that serves a variant."""
    # Clients that wait for their answers load it as far as it goes, and none is to be refused.
    limits = ["--max-queue-ms", "0"]
    if variant.replicas:
        limits += ["--cluster", "local", "--replicas", str(variant.replicas)]
    else:
        limits += ["--workers", AUTO_WORKERS if variant.workers is None else str(variant.workers)]
    return [
        *(*options.launch_prefix, sys.executable, "-m", "service"),
        *("--handler", str(variant.handler)),
        *(_images(variant, options) if variant.handler == "pipeline" else options.image_args),
        *_engine(workload, options, options.engine),
        *("--host", HOST, "--port", str(options.port)),
        *limits,
        *variant.server_args,
    ]


def upper_bound_command(
    variant: Variant,
    workload: Workload,
    options: ServerOptions,
    engine: str,
    images: Path,
    duration_s: float,
    *,
    with_gpu: bool,
) -> list[str]:
    """The command that measures an upper bound with the engine that the servers chose.

    Args:
        variant: one without a server.
        workload: the model.
        options: how the servers run.
        engine: the engine that the servers reported.
        images: folder of images.
        duration_s: what all batch sizes together take, and a first number of processes.
        with_gpu: whether the sizes are those of a GPU.
    """
    sizes: tuple[int, ...] = _GPU_BATCH_SIZES if with_gpu else _CPU_BATCH_SIZES
    if variant.bound_args[:2] == ("--part", "decode") and not variant.decodes_on_gpu:
        sizes = (1,)  # a CPU decodes one image at a time, whatever the batch
    # With the best size it is measured in several processes, too.
    windows = len(sizes) if variant.is_part else len(sizes) + 1
    return [
        *(*options.launch_prefix, sys.executable, "-m", "pipeline.upper_bound"),
        *_engine(workload, options, engine),
        # It may calibrate with images of its own choice; then it skips those that the load skips.
        *([] if options.calibration_images else _skipping(options)),
        *_images(variant, options),
        *variant.bound_args,
        *("--batch_sizes", ",".join(map(str, sizes))),
        *("--img_dir", str(images), "--duration_s", f"{duration_s / windows:g}"),
    ]


def tunable_command(variant: Variant, workload: Workload, options: ServerOptions) -> list[str]:
    """The command that tells which document a variant's server runs."""
    return [
        *(sys.executable, "-m", "pipeline.tunable"),
        *_engine(workload, options, options.engine),
        *_images(variant, options),
        *variant.server_args,
    ]


def serving_graph_command(workload: Workload, options: ServerOptions, output: Path) -> list[str]:
    """The command that writes the graph that the servers' engine runs, for servers of peers."""
    return [
        *(sys.executable, "-m", "engine.serving_graph", workload.model),
        *_calibration(options),
        *("--engine", options.engine, "--precision", options.precision),
        *("--output", str(output)),
    ]


def _engine(workload: Workload, options: ServerOptions, engine: str) -> list[str]:
    """The model, and what runs it how."""
    command = [*_calibration(options), *options.model_args, "--model", workload.model]
    return [*command, "--engine", engine, "--precision", options.precision]


def _images(variant: Variant, options: ServerOptions) -> list[str]:
    """How images come to the model: a file of one's own says so, and where it decodes."""
    if options.config is not None and not variant.decodes_on_gpu:
        return ["--config", options.config]
    return [*options.image_args, "--decode", variant.decode]


def _calibration(options: ServerOptions) -> list[str]:
    """The images for int8, where there are any."""
    if options.calibration_images is None:
        return []
    return ["--calibration-images", options.calibration_images, *_skipping(options)]


def _skipping(options: ServerOptions) -> list[str]:
    return [f"--{dashed(SKIP_BAD_IMAGES)}"] if options.skip_bad_images else []


def parse_launch_prefix(text: str) -> tuple[str, ...]:
    """Split a command prefix as a shell would.

    Raises:
        UsageError: an unclosed quotation mark.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--launch_prefix {text!r}: {error}") from error
