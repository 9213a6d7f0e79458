"""The in-process limit: preprocessing and engine with no RPC, no queue and no waiting.

`python -m pipeline.limit --model resnet50 --img_dir DIR` runs the backends of a configuration in
one process, one thread for each instance of the engine's node, each thread taking photographs
through every node by itself. What a service on the same host reaches is a share of this.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.interface import EngineError
from pipeline.assembly import build_backend, fitting_instance_num
from pipeline.backend import Backend, InstanceConfig, Item, SharedResources, result_becomes_data
from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import PipelineConfigError
from pipeline.handler import engine_node, handler_document
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.settings import read_floats
from service.handler import ConfigurationError, HandlerSettings

_WARM_UP_S = 0.5
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass
class _Shared:
    """What the threads of one measurement share."""

    config: PipelineConfig
    engine: str
    threads: int
    resources: dict[str, SharedResources]


def measure_limit(
    settings: HandlerSettings, images: Sequence[bytes], batch_size: int, duration_s: float
) -> tuple[float, int]:
    """Images a second, and the threads that reached them.

    Args:
        settings: as the pipeline handler takes them.
        images: encoded photographs; all must decode.
        batch_size: how many images a thread preprocesses before it runs the engine.
        duration_s: length of the measured window.

    Raises:
        EngineError, PipelineConfigError: the configuration cannot run, or an image is none.
    """
    document = handler_document(settings)
    node = engine_node(parse_config(document))
    document[node] = {**document[node], "max": batch_size, "min": 1}
    config = parse_config(document)
    threads = fitting_instance_num(
        config.nodes[node].backend,
        config.nodes[node].instance_num,
        config.nodes[node].settings,
        settings.engine,
    )
    resources = {name: SharedResources() for name in config.nodes}
    shared = _Shared(config, settings.engine, threads, resources)
    return _drive(shared, images, batch_size, duration_s), threads


def _drive(shared: _Shared, images: Sequence[bytes], batch_size: int, duration_s: float) -> float:
    """Images a second of all threads together."""
    rates: list[float] = []
    failures: list[Exception] = []
    ready = threading.Barrier(shared.threads)

    def work(index: int) -> None:
        try:
            with _chain(shared) as chain:
                photographs = itertools.cycle([*images[index:], *images[:index]])
                ready.wait()
                _images_per_s(chain, photographs, batch_size, _WARM_UP_S)
                rates.append(_images_per_s(chain, photographs, batch_size, duration_s))
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


def _images_per_s(
    chain: Sequence[Backend], photographs: Iterator[bytes], batch_size: int, duration_s: float
) -> float:
    """One thread's rate over whole batches, at least for `duration_s`."""
    start_s = now_s = time.monotonic()
    finished = 0
    while now_s - start_s < duration_s:
        _run(chain, [next(photographs) for _ in range(batch_size)])
        finished += batch_size
        now_s = time.monotonic()
    return finished / (now_s - start_s)


@contextmanager
def _chain(shared: _Shared) -> Iterator[list[Backend]]:
    """The backends of all nodes in order, initialised in the calling thread."""
    chain = []
    name: str | None = shared.config.roots()[0]
    while name is not None:
        node = shared.config.nodes[name]
        backend = build_backend(node.backend)
        backend.init(
            InstanceConfig(
                name, node.settings, shared.threads, shared.engine, shared.resources[name]
            )
        )
        chain.append(backend)
        name = node.next
    try:
        yield chain
    finally:
        for backend in chain:
            backend.close()


def _run(chain: Sequence[Backend], images: Sequence[bytes]) -> None:
    items: list[Item] = [{TASK_DATA_KEY: data} for data in images]
    for position, backend in enumerate(chain):
        if position > 0:
            for item in items:
                result_becomes_data(item)
        for start in range(0, len(items), backend.max):
            backend.forward(items[start : start + backend.max])
    if not all(TASK_RESULT_KEY in item for item in items):
        raise EngineError("an image of the folder does not pass the pipeline")


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
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision")
    parser.add_argument("--duration_s", type=float, default=5.0, help="for each batch size")
    parser.add_argument("--batch_sizes", default="1,2,4", help="tried one after the other")
    options = parser.parse_args(arguments)
    settings = HandlerSettings(
        engine=options.engine,
        precision=options.precision,
        model=options.model,
        weights=options.weights,
        config=options.config,
        mean=options.mean,
        std=options.std,
    )
    try:
        images = _read_images(options.img_dir)
        sizes = [int(size) for size in options.batch_sizes.split(",")]
        measured = {
            size: measure_limit(settings, images, size, options.duration_s) for size in sizes
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
