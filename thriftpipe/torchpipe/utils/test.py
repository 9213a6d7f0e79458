"""Load on a function or a folder of images, in this process, as torchpipe measures it.

What a client's function raises ends the measurement, and is raised.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from interfaces.image_formats import JPEG_SUFFIXES
from pipeline.image_files import MOST_IMAGES, Image, image_files, read_images
from service.errors import ConfigurationError
from thriftpipe.torchpipe.facts import infer_shape
from thriftpipe.torchpipe.pipes import pipe

Forward: TypeAlias = Callable[..., object]

# torchpipe's own layout, which its users' scripts may read.
_SUMMARY = """\
------------------------------Summary------------------------------
num_clients::    {0[num_clients]}
total_number::   {0[total_number]}
throughput::     qps:  {0[throughput::qps]}
                 avg:  {0[throughput::avg]} ms   [avg:=num_clients/qps]
latency::        TP50: {0[latency::TP50]}   TP90: {0[latency::TP90]}   TP99: {0[latency::TP99]} ms
                 avg:  {0[latency::avg]} ms
cpu::            usage: {0[cpu_usage]}%
-------------------------------------------------------------------
"""


class Sampler:
    """What a client does again and again; a subclass has `__call__`."""

    def __call__(self, start_index: int) -> None:
        """Do it once, with the request's number."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def batchsize(self) -> int:
        """How many of `total_number` a call counts for."""
        return 1


class _DataSampler(Sampler):
    """Takes some of a list, and hands them to `forward`."""

    def __init__(self, data: list[Any], batch_size: int = 1) -> None:
        super().__init__()
        if not batch_size > 0 or not data:
            raise ValueError(f"{batch_size} of {len(data)} samples: expected at least 1 of both")
        self.data = data
        self.batch_size = batch_size

    def batchsize(self) -> int:
        """How many a call takes."""
        return self.batch_size

    def forward(self, data: list[Any]) -> None:
        """Do something with what was taken; a subclass has it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class RandomSampler(_DataSampler):
    """Takes them at random."""

    def __init__(self, data_source: list[Any], batch_size: int = 1) -> None:
        super().__init__(data_source, batch_size)
        self.data_source = data_source

    def __call__(self, start_index: int) -> None:
        """Take some, each at most once where there are enough."""
        del start_index
        data, size = self.data, self.batch_size
        enough = data if len(data) >= size else data * -(-size // len(data))
        self.forward(random.sample(enough, size))


class SequentialSampler(_DataSampler):
    """Takes them in order, from that number on."""

    def __call__(self, start_index: int) -> None:
        """Take what is left from there."""
        self.forward(self.data[start_index : start_index + self.batch_size])


class LoopSampler(_DataSampler):
    """Takes them in order, and begins again at the end."""

    def __call__(self, start_index: int) -> None:
        """Take as many as a batch has."""
        data = self.data
        self.forward(
            [data[i % len(data)] for i in range(start_index, start_index + self.batch_size)]
        )


class FileSampler(LoopSampler):
    """Reads files, and hands their names and bytes to `handle_data`."""

    def __init__(self, data: list[Any], batch_size: int = 1) -> None:
        super().__init__(data, batch_size)
        self.local_result: dict[str, Any] = {}

    def forward(self, data: list[Any]) -> None:
        """Read them."""
        self.handle_data([(path, Path(path).read_bytes()) for path in data])

    def handle_data(self, raw_bytes: list[Image]) -> None:
        """Do something with them; a subclass has it."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_data")


def preload(
    file_dir: str | os.PathLike[str],
    num_preload: int = MOST_IMAGES,
    recursive: bool = True,
    ext: Sequence[str] = JPEG_SUFFIXES,
) -> list[tuple[str, bytes | None]]:
    """Names and bytes of a folder's images; without the bytes where `num_preload` is 0.

    Raises:
        RuntimeError: there is none.
    """
    try:
        files = image_files([Path(file_dir)], recursive=recursive, suffixes=ext)
    except ConfigurationError as error:
        raise RuntimeError(str(error)) from error
    if num_preload <= 0:
        return [(str(path), None) for path in files]
    return list(read_images(files, num_preload))


def test(sample: Sampler | Sequence[Sampler], total_number: int = 10_000) -> dict[str, Any]:
    """Let each sampler call itself in a thread of its own, until so many are done.

    Returns:
        The numbers, under torchpipe's names; they are printed, too.
    """
    samplers = list(sample) if isinstance(sample, Sequence) else [sample]
    return _measure(samplers, [one.batchsize() for one in samplers], total_number)


def test_function(
    forward_function: Forward | Sequence[Forward],
    num_clients: int = 10,
    batch_size: int = 1,
    total_number: int = 10_000,
) -> dict[str, Any]:
    """Load on a function without arguments, or on one for each client; see `test`."""
    functions = _per_client(forward_function, num_clients)
    calls = [lambda _, one=one: one() for one in functions]
    return _measure(calls, [batch_size] * num_clients, total_number)


test_functions = test_function


def test_from_raw_file(
    forward_function: Forward | Sequence[Forward],
    file_dir: str | os.PathLike[str],
    num_clients: int = 10,
    batch_size: int = 1,
    total_number: int = 10_000,
    num_preload: int = MOST_IMAGES,
    recursive: bool = True,
    ext: Sequence[str] = JPEG_SUFFIXES,
    request_batch: int | None = None,
) -> dict[str, Any]:
    """Load on a function that takes a list of (name, bytes), or on one for each client.

    Args:
        forward_function: it, or a list of them.
        file_dir: a folder of images.
        num_clients: how many threads call side by side.
        batch_size: images of a call.
        total_number: images of all calls together.
        num_preload: how many images are kept in memory, of which each call takes some at random;
            0 sends every image of the folder once, in order.
        recursive: whether folders in the folder count.
        ext: what names of images end in.
        request_batch: another name of `batch_size`.

    Returns:
        The numbers, under torchpipe's names; they are printed, too.

    Raises:
        RuntimeError: there is no image.
    """
    size = batch_size if request_batch is None else request_batch
    data = preload(file_dir, num_preload, recursive, ext)
    samplers: list[_DataSampler] = []
    for function in _per_client(forward_function, num_clients):
        if num_preload > 0:
            sampler: _DataSampler = RandomSampler(data, size)
            sampler.forward = function  # type: ignore[method-assign,assignment]
        else:
            sampler = reader = FileSampler([name for name, _ in data], size)
            reader.handle_data = function  # type: ignore[method-assign,assignment]
        samplers.append(sampler)
    return test(samplers, total_number if num_preload > 0 else len(data))


def test_from_ids(
    forward_function: Sequence[Forward], ids: Sequence[Any], request_batch: int = 1
) -> dict[str, Any]:
    """Load on functions that take a list of ids, each id once; a client for each function."""
    samplers = [LoopSampler(list(ids), request_batch) for _ in forward_function]
    for sampler, function in zip(samplers, forward_function, strict=True):
        sampler.forward = function  # type: ignore[method-assign,assignment]
    return test(samplers, len(ids))


def throughput(
    model_or_args_dict: str | dict[str, Any], num_clients: int = 10, total_number: int = 10_000
) -> dict[str, Any]:
    """Load on an ONNX file, with one random row an item.

    Args:
        model_or_args_dict: the file, or the settings of its node, such as `max` and `precision`.
        num_clients: how many threads call side by side.
        total_number: how many items.

    Returns:
        The numbers, and the settings of the node.
    """
    given = (
        {"model": model_or_args_dict} if isinstance(model_or_args_dict, str) else model_or_args_dict
    )
    if "model" not in given:
        raise ValueError("the settings need a model: an ONNX file")
    settings = {
        "instance_num": "2",
        "max": "4",
        "batching_timeout": "5",
        "backend": "SyncTensor[TensorrtTensor]",
        **given,
    }
    shapes = [[1, *shape[1:]] for shape in infer_shape(settings["model"])]
    rows = [torch.randn(*shape) for shape in shapes]
    data = rows[0] if len(rows) == 1 else rows
    with pipe(settings) as model:
        numbers = test_function(lambda: model(data=data), num_clients, 1, total_number)
    return {**numbers, **settings}


test_throughput = throughput


def _per_client(functions: Forward | Sequence[Forward], num_clients: int) -> list[Forward]:
    if callable(functions):
        return [functions] * num_clients
    if len(functions) != num_clients:
        raise ValueError(
            f"{len(functions)} functions for {num_clients} clients: expected one, or one for each"
        )
    return list(functions)


def _measure(
    calls: Sequence[Callable[[int], object]], sizes: Sequence[int], total_number: int
) -> dict[str, Any]:
    """Call them side by side; `sizes` are how many a call of each counts for."""
    # They need the packages of the extra "bench", which a program that measures nothing does not.
    from pipeline.benchmark.load import Load, run_load, warm_up
    from pipeline.benchmark.raw_file import torchpipe_summary

    if total_number < 1 or len(set(sizes)) != 1:
        raise ValueError(
            f"total_number = {total_number}, batch sizes {sorted(set(sizes))}: expected at "
            "least 1, and one size for all clients"
        )
    raised: list[Exception] = []
    requests = [_request(call, raised) for call in calls]
    # The numbers stand for images, which the clients have themselves.
    numbers: list[Image] = [(str(number), b"") for number in range(total_number)]
    load = Load(len(calls), sizes[0], images=total_number, in_order=True)
    warm_up(requests, numbers, load)
    outcome = run_load(requests, numbers, load)
    if raised:
        raise raised[0]
    result = torchpipe_summary(outcome)
    sys.stdout.write(_SUMMARY.format(result))
    return result


def _request(
    call: Callable[[int], object], raised: list[Exception]
) -> Callable[[list[Image]], Sequence[str]]:
    def request(images: list[Image]) -> list[str]:
        if raised:
            # Nothing more is sent; the numbers will not be used.
            return []
        try:
            call(int(images[0][0]))
        except Exception as error:
            raised.append(error)
            raise
        return []

    return request
