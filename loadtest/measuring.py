"""From command-line options to the settings of a measurement, as they suit this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest import images, machine
from loadtest.agreement import DECODER_TOLERANCE
from loadtest.arguments import AUTO
from loadtest.clients import LoadSettings, fitting_client_processes
from loadtest.compare import CompareSettings
from loadtest.errors import LoadTestError
from loadtest.sweep import SweepSettings
from loadtest.variants import (
    HOST,
    ServerOptions,
    default_precision,
    default_variants,
    default_workloads,
    parse_launch_prefix,
    parse_variants,
    parse_workloads,
)

# fp16 and bf16 round; how much of it reaches a score grows with the depth of the model.
_SCORE_TOLERANCE = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.02, "int8": 0.05}


def compare_settings(options: argparse.Namespace) -> CompareSettings:
    """What `compare` was asked for.

    Raises:
        LoadTestError: an unknown name, or a file or folder that does not exist.
    """
    with_gpu = machine.has_gpu()
    servers = _server_options(options, with_gpu=with_gpu)
    return CompareSettings(
        workloads=parse_workloads(options.workloads or default_workloads(with_gpu=with_gpu)),
        variants=parse_variants(options.variants or default_variants(with_gpu=with_gpu)),
        servers=servers,
        load=load_settings(options, HOST),
        repeats=options.repeats,
        score_tolerance=_score_tolerance(options, servers.precision),
        decoder_tolerance=_decoder_tolerance(options),
        images=chosen_images(options),
        stages_s=options.stages_s,
        keep_servers=options.keep_servers,
    )


def sweep_settings(options: argparse.Namespace) -> SweepSettings:
    """What `sweep` was asked for.

    Raises:
        LoadTestError: an unknown name, a variant without a server, or a file or folder that does
            not exist.
    """
    variants = parse_variants(options.variants)
    for variant in variants:
        if variant.handler is None:
            raise LoadTestError(f"variant {variant.name!r} has no server, so no clients either")
    workloads = parse_workloads(options.workload)
    if len(workloads) > 1:
        raise LoadTestError(f"--workload takes one model, got {options.workload!r}")
    servers = _server_options(options, with_gpu=machine.has_gpu())
    return SweepSettings(
        workload=workloads[0],
        variants=variants,
        servers=servers,
        load=LoadSettings(
            host=HOST,
            port=options.port,
            request_client=max(options.clients),
            request_batch=options.request_batch,
            seed=options.seed,
            warmup_s=options.warmup_s,
            duration_s=options.duration_s,
            request_timeout_s=options.request_timeout_s,
        ),
        clients=options.clients,
        client_processes=options.client_processes,
        repeats=options.repeats,
        score_tolerance=_score_tolerance(options, servers.precision),
        decoder_tolerance=_decoder_tolerance(options),
        images=chosen_images(options),
        tp99_limit_ms=options.tp99_limit_ms,
        keep_servers=options.keep_servers,
    )


def load_settings(options: argparse.Namespace, host: str) -> LoadSettings:
    """The load on a server at `host`."""
    return LoadSettings(
        host=host,
        port=options.port,
        request_client=options.request_client,
        request_batch=options.request_batch,
        client_processes=options.client_processes
        or fitting_client_processes(
            options.request_client, machine.usable_cores(), with_gpu=machine.has_gpu()
        ),
        seed=options.seed,
        warmup_s=options.warmup_s,
        duration_s=None if options.total_number is not None else options.duration_s,
        total_number=options.total_number,
        request_timeout_s=options.request_timeout_s,
    )


def chosen_images(options: argparse.Namespace) -> list[images.LoadImage]:
    """The images of --img_dir, or the photo set.

    Raises:
        LoadTestError: the folder has none, or a file that is no image.
    """
    if options.img_dir is None:
        return images.default_images()
    return images.read_folder(Path(options.img_dir))


def _server_options(options: argparse.Namespace, *, with_gpu: bool) -> ServerOptions:
    if options.config is not None and not Path(options.config).is_file():
        raise LoadTestError(f"configuration file {options.config!r} does not exist")
    folder = options.calibration_images
    if folder is not None and not Path(folder).is_dir():
        raise LoadTestError(f"folder {folder!r} of --calibration_images does not exist")
    precision = options.precision
    if precision == AUTO:
        precision = default_precision(options.engine, with_gpu=with_gpu)
    return ServerOptions(
        engine=options.engine,
        precision=precision,
        model_args=_model_args(options),
        calibration_images=options.calibration_images,
        config=options.config,
        port=options.port,
        launch_prefix=parse_launch_prefix(options.launch_prefix),
        ready_timeout_s=options.ready_timeout_s,
    )


def _model_args(options: argparse.Namespace) -> tuple[str, ...]:
    """What the model needs, in one word a flag so that a negative mean is no flag of its own."""
    given = {name: getattr(options, name) for name in ("weights", "mean", "std")}
    return tuple(f"--{name}={value}" for name, value in given.items() if value is not None)


def _score_tolerance(options: argparse.Namespace, precision: str) -> float:
    given: float | None = options.score_tolerance
    return _SCORE_TOLERANCE[precision] if given is None else given


def _decoder_tolerance(options: argparse.Namespace) -> float:
    given: float | None = options.score_tolerance
    return DECODER_TOLERANCE if given is None else given
