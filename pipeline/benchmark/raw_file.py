"""torchpipe's `from_raw_file`: a folder of images through any function, from many threads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from interfaces.image_formats import JPEG_SUFFIXES
from pipeline.benchmark.load import Load, LoadOutcome, Request, run_load, warm_up
from pipeline.errors import PipelineInputError
from pipeline.image_files import MOST_IMAGES, Image, image_files, read_images

Forward: TypeAlias = Callable[[list[Image]], object]


def from_raw_file(
    forward_function: Forward | Sequence[Forward],
    file_dir: str | Path,
    num_clients: int = 10,
    request_batch: int = 1,
    total_number: int = 10_000,
    num_preload: int = MOST_IMAGES,
    recursive: bool = True,
    ext: Collection[str] = JPEG_SUFFIXES,
) -> dict[str, Any]:
    """Load on a function of a user's, as torchpipe measures it.

    Args:
        forward_function: gets the images of a request as (name, bytes) and waits for their results;
            an exception fails them all. A list of functions has one for each client.
        file_dir: a folder of images.
        num_clients: how many threads call side by side.
        request_batch: images of a request.
        total_number: how many images are sent.
        num_preload: how many images are kept in memory, from which each request takes some at
            random; 0 sends every image of the folder once, in order.
        recursive: whether folders in the folder count.
        ext: what names of images end in; case does not matter.

    Returns:
        Under torchpipe's names: `num_clients`, `total_number`, `throughput::qps` (images with a
        result a second), `throughput::avg` (num_clients / qps, in ms), `latency::TP50` and so on
        and `latency::avg` (ms, of requests that did not fail), `cpu_usage` (percent of a core,
        of this process); and `failed`, a count by what the errors said.

    Raises:
        ConfigurationError: there is no image.
        PipelineInputError: a number is out of range, there are not as many functions as clients,
            or every request has failed.
    """
    functions = [forward_function] if callable(forward_function) else list(forward_function)
    if len(functions) not in (1, num_clients):
        raise PipelineInputError(
            f"from_raw_file takes one function, or one for each of the {num_clients} clients; got "
            f"{len(functions)}"
        )
    files = image_files([Path(file_dir)], recursive=recursive, suffixes=ext)
    total = total_number if num_preload > 0 else len(files)
    for name, value in (
        ("num_clients", num_clients),
        ("request_batch", request_batch),
        ("total_number", total),
    ):
        if value < 1:
            raise PipelineInputError(f"{name} = {value}: expected at least 1")
    images = read_images(files, num_preload or len(files))
    load = Load(num_clients, request_batch, images=total, in_order=num_preload <= 0)
    requests = [_request(function) for function in functions]
    if num_preload > 0:
        warm_up(requests, images, load)
    outcome = run_load(requests, images, load)
    if not outcome.latencies_ms:
        raise PipelineInputError(
            f"every request has failed: {outcome.failures.most_common(1)[0][0]}"
        )
    return torchpipe_summary(outcome)


def torchpipe_summary(outcome: LoadOutcome) -> dict[str, Any]:
    """The numbers of a load, of which something has not failed, as `from_raw_file` gives them."""
    clients = outcome.load.clients
    return {
        "num_clients": clients,
        "total_number": outcome.load.images,
        "throughput::qps": round(outcome.qps, 2),
        "throughput::avg": round(1000 * clients / outcome.qps, 2),
        **{
            f"latency::TP{percent}": round(outcome.tp_ms(percent / 100), 2)
            for percent in (50, 90, 99)
        },
        "latency::avg": round(outcome.mean_ms, 2),
        "cpu_usage": round(100 * outcome.cpu_s / outcome.wall_s, 1),
        "failed": dict(outcome.failures),
    }


def _request(function: Forward) -> Request:
    def request(images: list[Image]) -> list[str]:
        function(images)
        return []

    return request
