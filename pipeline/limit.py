"""The in-process limit: preprocessing and engine with no RPC, no queue and no waiting.

`python -m pipeline.limit --model resnet50 --img_dir DIR` runs the backends of a configuration in
one process, each thread taking photographs through every node by itself. What a service on the
same host reaches is a share of this. `--part engine` runs the model alone, on images that are
prepared before the clock starts; `--part decode` runs what stands before it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.cpu import available_cores
from engine.interface import EngineError
from pipeline.assembly import build_backend, fitting_instance_num, runs_on_gpu
from pipeline.backend import (
    Backend,
    InstanceConfig,
    Item,
    SharedResources,
    initialise,
    result_becomes_data,
)
from pipeline.backends.inference import ENGINE_BACKEND
from pipeline.config import NodeConfig, PipelineConfig, parse_config
from pipeline.cuda_stream import InstanceStream
from pipeline.errors import PipelineConfigError
from pipeline.expression import Expression
from pipeline.handler import engine_node, handler_document
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.settings import read_floats
from service.handler import ConfigurationError, HandlerSettings

ALL, ENGINE, DECODE = "all", "engine", "decode"
PARTS = (ALL, ENGINE, DECODE)
_WARM_UP_S = 0.5
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class _Stage:
    """A node, or what is taken of it."""

    node: NodeConfig
    backend: Expression


@dataclass(frozen=True)
class _Shared:
    """What the threads of one measurement share.

    Attributes:
        preparing: what a thread runs before the clock starts.
        timed: what is measured.
        engine: a provider's name or "auto".
        threads: how many work side by side.
        on_gpu: whether a backend enqueues work on a GPU.
        resources: what the threads share, by node.
    """

    preparing: Sequence[_Stage]
    timed: Sequence[_Stage]
    engine: str
    threads: int
    on_gpu: bool
    resources: dict[str, SharedResources]


def measure_limit(
    settings: HandlerSettings,
    images: Sequence[bytes],
    batch_size: int,
    duration_s: float,
    part: str = ALL,
) -> tuple[float, int]:
    """Images a second, and the threads that reached them.

    Args:
        settings: as the pipeline handler takes them.
        images: encoded photographs; all must decode.
        batch_size: how many images a thread takes through each backend at once.
        duration_s: length of the measured window.
        part: one of PARTS.

    Raises:
        EngineError, PipelineConfigError: the configuration cannot run, or an image is none.
    """
    document = handler_document(settings)
    name = engine_node(parse_config(document))
    document[name] = {**document[name], "max": batch_size, "min": 1}
    config = parse_config(document)
    before, model = _split_at_engine(config, name)
    preparing, timed = {
        ALL: ([], [*before, *model]),
        ENGINE: (before, model),
        DECODE: ([], before),
    }[part]
    if not timed:
        raise PipelineConfigError(f"nothing stands before {ENGINE_BACKEND}, so nothing decodes")
    used = [*preparing, *timed]
    on_gpu = any(runs_on_gpu(it.backend, it.node.settings, settings.engine) for it in used)
    resources = {stage.node.name: SharedResources() for stage in used}
    threads = _threads(timed, settings.engine, on_gpu=on_gpu)
    shared = _Shared(preparing, timed, settings.engine, threads, on_gpu, resources)
    try:
        return _drive(shared, images, batch_size, duration_s), threads
    finally:
        for resource in resources.values():
            resource.close()


def _split_at_engine(config: PipelineConfig, engine_name: str) -> tuple[list[_Stage], list[_Stage]]:
    """What a request passes before the model, and the model with what follows it."""
    before: list[_Stage] = []
    after: list[_Stage] = []
    if not config.graph.is_chain:
        raise PipelineConfigError("the in-process limit runs nodes that form one chain only")
    for name in config.graph.upstream_first():
        node = config.nodes[name]
        if name == engine_name:
            head, tail = _split(node.backend)
            before += [] if head is None else [_Stage(node, head)]
            after.append(_Stage(node, tail))
        else:
            (after or before).append(_Stage(node, node.backend))
    return before, after


def _split(expression: Expression) -> tuple[Expression | None, Expression]:
    """The expression without its model and what follows that, if anything is left, and the rest.

    S[A,Torch[S[B,TensorrtTensor]]] becomes S[A,Torch[S[B]]] and S[Torch[S[TensorrtTensor]]].
    """
    if expression.name == ENGINE_BACKEND:
        return None, expression
    inner = expression.arguments
    position = next(i for i, entry in enumerate(inner) if ENGINE_BACKEND in entry.names())
    head, tail = _split(inner[position])
    heads = inner[:position] if head is None else (*inner[:position], head)
    before = replace(expression, arguments=heads) if heads else None
    return before, replace(expression, arguments=(tail, *inner[position + 1 :]))


def _threads(timed: Sequence[_Stage], engine: str, *, on_gpu: bool) -> int:
    """As many as the model has instances; without the model a CPU gets one a core."""
    last = timed[-1]
    has_model = ENGINE_BACKEND in last.backend.names()
    wanted = last.node.instance_num if has_model or on_gpu else available_cores()
    return fitting_instance_num(last.backend, wanted, last.node.settings, engine)


def _drive(shared: _Shared, images: Sequence[bytes], batch_size: int, duration_s: float) -> float:
    """Images a second of all threads together."""
    rates: list[float] = []
    failures: list[Exception] = []
    loading = threading.Lock()
    ready = threading.Barrier(shared.threads)

    def work(index: int) -> None:
        try:
            with ExitStack() as stack:
                # One after the other: a GPU cannot capture a graph while another thread allocates.
                with loading:
                    stream = InstanceStream(0) if shared.on_gpu else None
                    own: Sequence[Any] = [*images[index:], *images[:index]]
                    if shared.preparing:
                        own = _prepare(shared, own, stream)
                    chain = stack.enter_context(_chain(shared.timed, shared))
                    inputs = itertools.cycle(own)

                    def run_batch() -> None:
                        _run(chain, [next(inputs) for _ in range(batch_size)], stream)

                    run_batch()
                ready.wait()
                _images_per_s(run_batch, batch_size, _WARM_UP_S)
                rates.append(_images_per_s(run_batch, batch_size, duration_s))
        except Exception as error:  # noqa: BLE001 (raised again by the caller's thread)
            failures.append(error)
            ready.abort()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(shared.threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        # The threads that the first failure kept from starting report a broken barrier.
        raise failures[0]
    return sum(rates)


def _prepare(shared: _Shared, images: Sequence[bytes], stream: InstanceStream | None) -> list[Any]:
    """What the model gets of the images, as memory of its own that no backend writes again."""
    with _chain(shared.preparing, shared) as chain:
        prepared = [_run(chain, [data], stream)[0] for data in images]
        return [data.clone() if isinstance(data, torch.Tensor) else data for data in prepared]


def _images_per_s(run_batch: Callable[[], None], batch_size: int, duration_s: float) -> float:
    """One thread's rate over whole batches, at least for `duration_s`."""
    start_s = now_s = time.monotonic()
    finished = 0
    while now_s - start_s < duration_s:
        run_batch()
        finished += batch_size
        now_s = time.monotonic()
    return finished / (now_s - start_s)


@contextmanager
def _chain(stages: Sequence[_Stage], shared: _Shared) -> Iterator[list[Backend]]:
    """The backends of the stages in order, initialised in the calling thread."""
    with ExitStack() as stack:
        chain = []
        for stage in stages:
            node, backend = stage.node, build_backend(stage.backend)
            resources = shared.resources[node.name]
            initialise(
                backend,
                InstanceConfig(node.name, node.settings, shared.threads, shared.engine, resources),
            )
            stack.callback(backend.close)
            chain.append(backend)
        yield chain


def _run(
    chain: Sequence[Backend], inputs: Sequence[Any], stream: InstanceStream | None
) -> list[Any]:
    """The results of one batch, once they are there."""
    items: list[Item] = [{TASK_DATA_KEY: data} for data in inputs]
    for position, backend in enumerate(chain):
        if position > 0:
            for item in items:
                result_becomes_data(item)
        for start in range(0, len(items), backend.max):
            backend.forward(items[start : start + backend.max])
    if stream is not None:
        stream.finish(items)
    if not all(TASK_RESULT_KEY in item for item in items):
        raise EngineError("an image of the folder does not pass the pipeline")
    return [item[TASK_RESULT_KEY] for item in items]


def _read_images(folder: Path) -> list[bytes]:
    images = [
        path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES
    ]
    if not images:
        raise ConfigurationError(f"no images in {folder}: none of {', '.join(sorted(_SUFFIXES))}")
    return images


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.limit", description=__doc__)
    parser.add_argument("--img_dir", type=Path, required=True, help="folder of images")
    parser.add_argument("--model", help="ONNX file or packaged model (default: resnet50)")
    parser.add_argument("--weights", help="state-dict file for the packaged model")
    parser.add_argument("--mean", type=read_floats, metavar="R,G,B", help="in 0..255")
    parser.add_argument("--std", type=read_floats, metavar="R,G,B", help="in 0..255")
    parser.add_argument("--config", help="TOML file (default: the shipped one)")
    parser.add_argument("--decode", choices=("cpu", "gpu"), default="cpu", help="as the service's")
    parser.add_argument("--part", choices=PARTS, default=ALL, help="what is measured")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision")
    parser.add_argument("--calibration_images", metavar="DIR", help="folder of images for int8")
    parser.add_argument("--duration_s", type=float, default=5.0, help="for each batch size")
    parser.add_argument("--batch_sizes", default="1,2,4", help="tried one after the other")
    options = parser.parse_args(arguments)
    settings = HandlerSettings(
        engine=options.engine,
        precision=options.precision,
        model=options.model,
        weights=options.weights,
        config=options.config,
        decode=options.decode,
        mean=options.mean,
        std=options.std,
        calibration_images=options.calibration_images,
    )
    try:
        images = _read_images(options.img_dir)
        sizes = [int(size) for size in options.batch_sizes.split(",")]
        measured = {
            size: measure_limit(settings, images, size, options.duration_s, options.part)
            for size in sizes
        }
    except (EngineError, PipelineConfigError, ConfigurationError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 (a command line)
        return 2
    best = max(sizes, key=lambda size: measured[size][0])
    report = {
        "images_per_s": measured[best][0],
        "batch_size": best,
        "threads": measured[best][1],
        "by_batch_size": {str(size): rate for size, (rate, _) in measured.items()},
    }
    print(json.dumps(report))  # noqa: T201 (a command line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
