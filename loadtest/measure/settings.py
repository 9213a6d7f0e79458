"""From command-line options to the settings of a measurement, as they suit this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interfaces.engines import PROVIDERS
from interfaces.image_formats import DEFAULT_FORMATS, FORMATS
from interfaces.names import unknown_name
from interfaces.options import dashed, settings_from
from interfaces.peers import PEERS, Peer
from loadtest.errors import UsageError
from loadtest.load import images
from loadtest.load.arrivals import POISSON
from loadtest.measure.capacity_settings import CapacitySettings
from loadtest.measure.comparison_settings import ComparisonSettings
from loadtest.measure.load_settings import load_settings
from loadtest.measure.null_model import NULL_MODEL
from loadtest.measure.peers_settings import PeersSettings, PeerWorkload
from loadtest.measure.tune_settings import TuneSettings
from loadtest.progress import Progress
from loadtest.records import machine
from loadtest.servers.programs import parse_launch_prefix
from loadtest.servers.variants import (
    BASELINE,
    CONTROL,
    HOST,
    PIPELINE,
    PIPELINE_GPU,
    Variant,
    Workload,
    default_precision,
    default_variants,
    default_workloads,
    may_use_gpu,
    parse_variants,
    parse_workloads,
)
from loadtest.settings import (
    AUTO,
    DECODER_TOLERANCE,
    SCORE_TOLERANCE,
    WINDOW_S,
    ServerOptions,
)

_ENGINES = (AUTO, *dict.fromkeys(provider.name for provider in PROVIDERS))
_CPU_ENGINES = {"fp32": "onnxruntime"}
# Of the bar while images are decoded: drawing it for each would take longer than small ones.
_SHOWN_STEPS = 200


def compare_settings(options: argparse.Namespace) -> ComparisonSettings:
    """What `compare` was asked for.

    Raises:
        UsageError: an unknown name, or a file or folder that does not exist.
    """
    with_gpu = may_use_gpu(options.engine, has_gpu=machine.has_gpu())
    servers = _server_options(options, with_gpu=with_gpu)
    given: float | None = options.score_tolerance
    fits_windows = options.duration_s is None
    if fits_windows:
        options.duration_s = WINDOW_S
    return settings_from(
        ComparisonSettings,
        options,
        workloads=parse_workloads(options.workloads or default_workloads(with_gpu=with_gpu)),
        variants=_variants(options, with_gpu=with_gpu),
        servers=servers,
        load=load_settings(options, HOST),
        score_tolerance=SCORE_TOLERANCE[servers.precision] if given is None else given,
        decoder_tolerance=DECODER_TOLERANCE if given is None else given,
        images=chosen_images(options),
        clients=(),
        client_processes=None,
        tp99_limit_ms=0.0,
        adds_controls=not options.variants,
        fits_windows=fits_windows,
    )


def _variants(options: argparse.Namespace, *, with_gpu: bool) -> list[Variant]:
    """Those of --variants; UsageError where one cannot resize as --resize says."""
    keeps_ratio = options.resize is not None
    default = default_variants(with_gpu=with_gpu, keeps_ratio=keeps_ratio)
    variants = parse_variants(options.variants or default)
    if keeps_ratio and (on_gpu := [it.name for it in variants if it.decodes_on_gpu]):
        raise UsageError(
            f"--resize: variant {on_gpu[0]!r} decodes on the GPU, where images are resized to the "
            f"model's size whatever their aspect ratio; leave it out with --variants, or --resize"
        )
    return variants


def sweep_settings(options: argparse.Namespace) -> ComparisonSettings:
    """What `sweep` was asked for.

    Raises:
        UsageError: an unknown name, a variant without a server, or a file or folder that does
            not exist.
    """
    for variant in parse_variants(options.variants):
        if variant.handler is None:
            raise UsageError(f"variant {variant.name!r} has no server, so no clients either")
    if len(parse_workloads(options.workload)) > 1:
        raise UsageError(f"--workload takes one model, got {options.workload!r}")
    processes = options.client_processes
    options.workloads, options.stages_s = options.workload, 0.0
    options.request_client = max(options.clients)
    # As many as fit each number of clients.
    options.client_processes = 1
    return replace(
        compare_settings(options),
        clients=options.clients,
        client_processes=processes,
        tp99_limit_ms=options.slo_ms,
    )


def peers_settings(options: argparse.Namespace) -> PeersSettings:
    """What `peers` was asked for.

    Raises:
        UsageError: an unknown name, a variant without a server, or a file or folder that does
            not exist.
    """
    with_gpu = may_use_gpu(options.engine, has_gpu=machine.has_gpu())
    # The first one's answers are what others must give, and peers serve the pipeline's graph.
    default = (PIPELINE, BASELINE) if with_gpu else (PIPELINE, BASELINE, CONTROL)
    variants = parse_variants(options.variants or ",".join(default))
    if serverless := [variant.name for variant in variants if variant.handler is None]:
        raise UsageError(f"variant {serverless[0]!r} has no server, so no clients either")
    chosen = chosen_images(options)
    if options.calibration_images is None:
        options.calibration_images = str(chosen[0].path.parent)
    precisions = options.precisions or (("fp16",) if with_gpu else ("fp32", "int8"))
    models = options.workloads or f"resnet50,efficientnet_lite0,{NULL_MODEL}"
    # Of a workload are engine and precision.
    options.precision = precisions[0]
    return settings_from(
        PeersSettings,
        options,
        workloads=[
            workload
            for model in parse_workloads(models)
            for workload in _in_precisions(model, precisions, options, with_gpu=with_gpu)
        ],
        variants=variants,
        peers=chosen_peers(options, on_gpu=with_gpu),
        peers_dir=Path(options.peers_dir),
        servers=_server_options(options, with_gpu=with_gpu),
        load=load_settings(options, HOST),
        images=chosen,
        on_gpu=with_gpu,
    )


def chosen_peers(options: argparse.Namespace, *, on_gpu: bool) -> list[Peer]:
    """The peers that --peers names, or all that run there.

    Raises:
        UsageError: an unknown name, or that of one for CPUs only.
    """
    known = {peer.name: peer for peer in PEERS}
    if options.peers is None:
        return [peer for peer in PEERS if peer.tried(on_gpu=on_gpu)]
    for name in options.peers:
        if name not in known:
            raise UsageError(unknown_name("peer", name, known))
        if not known[name].tried(on_gpu=on_gpu):
            raise UsageError(f"peer {name!r} is measured on CPUs only; take --engine openvino")
    return [known[name] for name in options.peers]


def _in_precisions(
    model: Workload, precisions: Sequence[str], options: argparse.Namespace, *, with_gpu: bool
) -> Iterator[PeerWorkload]:
    """A model in each precision; the null model has nothing that a lower one would speed up."""
    for precision in precisions[:1] if model.name == NULL_MODEL else precisions:
        engine = options.engine
        if engine == AUTO:
            engine = "torch" if with_gpu else _CPU_ENGINES.get(precision, "openvino")
        given = options.score_tolerance
        tolerance = SCORE_TOLERANCE[precision] if given is None else given
        name = f"{model.name}-{precision}"
        yield PeerWorkload(name, model.model, engine, precision, tolerance)


def capacity_settings(options: argparse.Namespace) -> CapacitySettings:
    """What `capacity` was asked for."""
    processes = options.client_processes
    options.arrivals = options.arrivals or POISSON
    return settings_from(
        CapacitySettings,
        options,
        load=load_settings(options, options.host),
        client_processes=processes,
        images=chosen_images(options),
    )


def tune_settings(options: argparse.Namespace) -> TuneSettings:
    """What `tune` was asked for.

    Raises:
        UsageError: an unknown name, a file or folder that does not exist, or a variant that has
            no pipeline.
    """
    with_gpu = may_use_gpu(options.engine, has_gpu=machine.has_gpu())
    servers = _server_options(options, with_gpu=with_gpu)
    default = PIPELINE_GPU if with_gpu and options.config is None else PIPELINE
    (variant, *others) = parse_variants(options.variants or default)
    if others or variant.handler != "pipeline":
        raise UsageError(
            f"--variants takes one variant of the pipeline, such as {PIPELINE!r}, "
            f"got {options.variants!r}"
        )
    (workload, *more) = parse_workloads(options.workload)
    if more:
        raise UsageError(f"--workload takes one model, got {options.workload!r}")
    processes, options.clients = options.client_processes, sorted(options.clients)
    options.request_client = max(options.clients)
    given = options.score_tolerance
    return settings_from(
        TuneSettings,
        options,
        workload=workload,
        variant=variant,
        servers=servers,
        load=load_settings(options, HOST),
        client_processes=processes,
        score_tolerance=SCORE_TOLERANCE[servers.precision] if given is None else given,
        images=chosen_images(options),
    )


def chosen_images(options: argparse.Namespace) -> list[images.LoadImage]:
    """The images of --img_dir, or the photo set.

    Raises:
        UsageError: the folder has none, or some that cannot be used.
    """
    if options.img_dir is None:
        return images.default_images()
    # A server that runs already may decode other formats; those that are started do not.
    formats = FORMATS if "host" in options else DEFAULT_FORMATS
    # Each is decoded once, which takes a minute for thousands of large ones.
    progress = Progress()

    def show(done: int, of: int) -> None:
        if done % (of // _SHOWN_STEPS + 1) == 0:
            progress.update(f"decoding images: {done} of {of}", done / of)

    try:
        return images.read_folder(
            Path(options.img_dir),
            skip_bad=options.skip_bad_images,
            formats=formats,
            tell=progress.line,
            checked=show,
        )
    finally:
        progress.end_line()


def _server_options(options: argparse.Namespace, *, with_gpu: bool) -> ServerOptions:
    if options.engine not in _ENGINES:
        raise UsageError(unknown_name("engine", options.engine, _ENGINES))
    if options.config is not None and not Path(options.config).is_file():
        raise UsageError(f"configuration file {options.config!r} does not exist")
    folder = options.calibration_images
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"folder {folder!r} of --calibration_images does not exist")
    precision = options.precision
    if precision == AUTO:
        precision = default_precision(with_gpu=with_gpu)
    return settings_from(
        ServerOptions,
        options,
        precision=precision,
        model_args=_model_args(options),
        image_args=_image_args(options),
        launch_prefix=parse_launch_prefix(options.launch_prefix),
    )


def _model_args(options: argparse.Namespace) -> tuple[str, ...]:
    """What the model needs, in one word an option so that a negative mean is none of its own."""
    names = ("weights", "mean", "std", "layout", "color", "output", "output_activation")
    return _spelled({name: getattr(options, name) for name in names})


def _image_args(options: argparse.Namespace) -> tuple[str, ...]:
    """How images come to the model's size."""
    given = {"resize": options.resize}
    for name in ("input_size", "crop"):
        size = getattr(options, name)
        given[name] = None if size is None else "x".join(map(str, size))
    return _spelled(given)


def _spelled(given: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"--{dashed(name)}={value}" for name, value in given.items() if value is not None)
